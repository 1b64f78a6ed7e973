import pytest
import transformers
from transformers import AutoConfig, BertConfig

import hf_distill
from hf_distill.errors import ConfigurationError
from hf_distill.processing import TASKS, task_of


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("DebertaV2ForTokenClassification", "token-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("ViTForImageClassification", "image-classification"),
        ("ASTForAudioClassification", "audio-classification"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("BartForConditionalGeneration", "text2text-generation"),
        ("BertForMaskedLM", "fill-mask"),
        ("GPT2LMHeadModel", "text-generation"),
        (hf_distill.EncoderLMForCausalLM.__name__, "text-generation"),
    ],
)
def test_the_task_of_a_model_class(architecture, task):
    assert task_of(BertConfig(architectures=[architecture])) == task


def test_refuses_a_model_that_tells_no_task():
    with pytest.raises(ConfigurationError, match=r"the model classes BertModel, which tells no task\. Name one by"):
        task_of(BertConfig(architectures=["BertModel"]))
    with pytest.raises(ConfigurationError, match=r"Wav2Vec2ForCTC, .* other heads learn by `DistillationTrainer`"):
        task_of(BertConfig(architectures=["Wav2Vec2ForCTC"]))
    with pytest.raises(ConfigurationError, match="the model classes none"):
        task_of(AutoConfig.for_model("bert"))


@pytest.mark.parametrize("name", TASKS)
def test_names_are_those_of_transformers(name):
    assert hasattr(transformers, TASKS[name].auto_class)
    assert hasattr(transformers, TASKS[name].auto_processor)
