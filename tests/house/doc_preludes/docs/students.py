from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForSpeechSeq2Seq

from tests.house.local_hub import put_model, put_tokenizer


tokenizer = put_tokenizer("textattack/bert-base-uncased-SST-2", ["a fine film", "a dull film", "other words"])
put_model(
    "textattack/bert-base-uncased-SST-2",
    AutoModelForSequenceClassification,
    vocab_size=len(tokenizer),
    num_hidden_layers=12,
)
put_model(
    "openai/whisper-small",
    AutoModelForSpeechSeq2Seq,
    "whisper",
    d_model=16,
    encoder_layers=4,
    decoder_layers=4,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
)
put_model("albert/albert-base-v2", AutoModel, "albert", vocab_size=40, embedding_size=12)
