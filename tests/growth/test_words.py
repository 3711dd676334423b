import random
import unicodedata

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from isara_pl.callbacks import CopiedAnswer, NearDuplicate, TooShort
from isara_pl.evaluation.contamination import ContaminationIndex
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, count_words, tokens, wording
from isara_pl.report.suspicious import traits_of

# a question, another one that is near it, and one that is not
QUESTIONS = {
    "Cyrillic": (
        "Как изменить адрес доставки заказа?",
        "Как изменить адрес доставки посылки?",
        "Когда открыт магазин в порту?",
    ),
    "Greek": ("Πώς αλλάζω τη διεύθυνση παράδοσης;", "Πώς αλλάζω τη διεύθυνση αποστολής;", "Πότε ανοίγει το κατάστημα;"),
    "Arabic": ("كيف أغير عنوان التسليم الخاص بي؟", "كيف أغير عنوان الشحن الخاص بي؟", "متى يفتح المتجر أبوابه غدا؟"),
    "Hebrew": ("איך משנים את כתובת המשלוח?", "איך משנים את כתובת החיוב?", "מתי החנות נפתחת מחר בבוקר?"),
    "Devanagari": ("मैं अपना पता कैसे बदल सकता हूँ?", "मैं अपना नाम कैसे बदल सकता हूँ?", "दुकान कब खुलती है और कहाँ?"),
    "Korean": (
        "배송 주소를 어떻게 변경할 수 있나요?",
        "배송 시간을 어떻게 변경할 수 있나요?",
        "가게는 언제 문을 여나요?",
    ),
    "Chinese": ("如何更改我的送货地址？", "如何更改你的送货地址？", "港口店什么时候营业？"),
    "Japanese": ("配送先の住所を変更できますか？", "配送先の名前を変更できますか？", "お店はいつ開きますか？"),
    "Thai": ("ฉันจะเปลี่ยนที่อยู่จัดส่งได้อย่างไร", "ฉันจะเปลี่ยนที่อยู่จัดส่งได้ไหม", "ร้านเปิดกี่โมง"),
}
ANSWER = "An answer of quite a few words."
every_script = pytest.mark.parametrize(("known", "near", "other"), QUESTIONS.values(), ids=QUESTIONS)


def candidate(question: str, answer: str = ANSWER, **more) -> Sample:
    return Sample("1-00000", question, answer, 1, **more)


@every_script
@pytest.mark.parametrize("against", ["pool", "context"])
def test_a_copy_of_a_seed_is_a_duplicate_in_every_script(known, near, other, against):
    pool = SamplePool([Sample("seed-00000", known, ANSWER)])
    judge = lambda text: NearDuplicate(0.7, against).verdict(  # noqa: E731
        candidate(text, question_demonstrations=("seed-00000",)), pool
    )
    assert judge(known).reason is not None
    assert judge(known).figure == judge(f" {known.rstrip('?？؟;')} !").figure == 1
    assert judge(near).reason is not None
    assert 0.7 < judge(near).figure < 1
    assert judge(other).reason is None


@pytest.mark.parametrize("against", ["pool", "context"])
def test_a_shared_latin_word_makes_no_duplicate(against):
    pool = SamplePool([Sample("seed-00000", "Как включить Wi-Fi на маленьком роутере?", ANSWER)])
    other = candidate("Почему Wi-Fi не работает за городом зимой?", question_demonstrations=("seed-00000",))
    verdict = NearDuplicate(0.7, against).verdict(other, pool)
    assert verdict.reason is None
    assert 0 < verdict.figure < 0.5


@pytest.mark.parametrize("against", ["pool", "context"])
@pytest.mark.parametrize(("known", "again"), [("Why is it so?", "why is it SO"), ("Öl?", "öl!"), ("🙂🙃", "🙂🙃")])
def test_the_wording_of_a_known_question_is_never_new(against, known, again):
    pool = SamplePool([Sample("seed-00000", known, ANSWER), Sample("seed-00001", "Quite another thing?", ANSWER)])
    verdict = NearDuplicate(1.0, against).verdict(candidate(again, question_demonstrations=("seed-00001",)), pool)
    assert (verdict.figure, verdict.reason) == (1.0, "question is in the pool already")


@every_script
def test_no_whole_question_is_too_short_in_any_script(known, near, other):
    pool = SamplePool([Sample("seed-00000", known, ANSWER)])
    assert TooShort(min_words=4).verdict(candidate(known, other), pool).reason is None
    assert TooShort(min_words=4).verdict(candidate(known[:3]), pool).reason == "question under 4 words"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Why is the well-known - thing so?", 7),  # as white space splits it
        ("Как изменить адрес?", 3),
        ("如何更改？", 4),
        ("我的 iPhone坏了。", 5),
        ("กี่โมง", 4),  # vowels and tones stand with their consonant
        ("데이터를 어떻게", 2),
        ("", 0),
    ],
)
def test_words_are_counted_at_spaces_or_by_characters(text, count):
    assert count_words(text) == count


def test_tokens_of_latin_script_are_those_of_rouge_score():
    draw, plain = random.Random(0), DefaultTokenizer(use_stemmer=False)
    latin = [chr(code) for code in (*range(0x250), *range(0x1E00, 0x1F00))] + list("“”’—…€™½²ﬁ\u0301①Ⅷ😀\ufe0fªºµ")
    for _ in range(5000):
        text = "".join(draw.choices(latin + list("abc  dE9"), k=14))
        assert tokens(text) == plain.tokenize(text)


def test_scores_of_words_in_other_scripts_are_those_of_the_same_words_in_latin():
    cyrillic = ["один два три четыре", "два один четыре", "пять, шесть", "Один! Два?"]
    latin = ["one two three four", "two one four", "five, six", "One! Two?"]
    index = RougeLIndex()
    index.add(cyrillic)
    scorer = RougeScorer(["rougeL"])
    for mine, theirs in zip(cyrillic, latin, strict=True):
        assert index.scores(mine).tolist() == [scorer.score(theirs, other)["rougeL"].fmeasure for other in latin]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@every_script
def test_composed_and_decomposed_letters_are_the_same(known, near, other, form):
    assert tokens(unicodedata.normalize(form, known)) == tokens(known) != []
    assert wording(unicodedata.normalize(form, known)) == wording(known)


def test_wording_ignores_case_punctuation_and_spacing_in_any_script():
    assert wording("  Why is the SKY — blue?") == wording("why is the sky blue")
    assert wording("天空为什么是蓝色的？") == wording("天空为什么 是蓝色的") != wording("海为什么是蓝色的？")
    assert wording("Cafe\u0301?") == wording("café") != wording("cafe")
    assert wording("कि") != wording("की")  # vowel signs tell words apart
    assert wording("?!") != wording("...")


@every_script
def test_contamination_is_found_in_every_script(known, near, other):
    index = ContaminationIndex([Sample("item", known, ANSWER)], None, ngram=100)
    contacts = [index.contacts([Sample("s", text, "Else.")]) for text in (known, near, other)]
    assert [[contact.kind for contact in found] for found in contacts] == [["rouge"], ["rouge"], []]
    words = ContaminationIndex([Sample("item", "Else?", f"{known} {other}")], None, ngram=4, rouge=1)
    assert [contact.kind for contact in words.contacts([Sample("s", "What?", f"{other} {near}")])] == ["ngram"]


@pytest.mark.parametrize(
    ("question", "answer"), [("天空是蓝色的？", "天空是蓝色的。"), ("هل السماء زرقاء؟", "هل السماء زرقاء.")]
)
def test_an_answer_that_repeats_its_question_may_end_in_another_sign(question, answer):
    assert CopiedAnswer().verdict(candidate(question, answer), SamplePool([])).reason is not None


def test_the_length_of_an_answer_is_counted_in_its_script():
    answers = ["我们的总店在老城区。", "Главный магазин у рынка."]
    assert [traits.words for traits in traits_of([candidate("?", answer) for answer in answers])] == [9, 4]
