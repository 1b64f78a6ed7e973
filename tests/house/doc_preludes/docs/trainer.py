import tempfile
from pathlib import Path

from tests.house.local_hub import put_tokenizer
from tests.tiny_trainers import trainer_for


put_tokenizer("google-bert/bert-base-uncased", ["a fine film"])
trainer = trainer_for(Path(tempfile.mkdtemp()))
