from tests.house.local_hub import put_tokenizer


put_tokenizer("google-bert/bert-base-uncased", ["a fine film"])
