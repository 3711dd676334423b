"""What others can use of a run: its adapter, the merged model and the pairs, with cards; knows no trainer."""
