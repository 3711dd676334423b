"""What tests of choice scores share with others."""

from isara_pl.evaluation.choice_scores import Question

QUESTIONS = [
    Question("Question: Why so?\nAnswer:", (" The sky is blue.", " No.", " Air scatters blue light.", " No.")),
    Question("Question: And who is it then?\nAnswer:", (" Air scatters blue light more than red light.",)),
    Question("Question: What is the largest ocean on Earth?\nAnswer:", (" The Pacific Ocean.", " The moon")),
]
