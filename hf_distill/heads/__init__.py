"""What we know of each kind of model head: one small contract a kind."""

from hf_distill.heads.base import Head
from hf_distill.heads.classification import (
    MultiLabelHead,
    MultipleChoiceHead,
    NextSentenceHead,
    RegressionHead,
    SingleLabelHead,
    TokenClassificationHead,
)
from hf_distill.heads.ctc import CTCHead
from hf_distill.heads.detection import FocalObjectDetectionHead, ObjectDetectionHead
from hf_distill.heads.dual_encoder import DualEncoderHead
from hf_distill.heads.embeddings import EmbeddingHead, SimilarityHead
from hf_distill.heads.language_models import CausalLMHead, MaskedLMHead
from hf_distill.heads.question_answering import QuestionAnsweringHead
from hf_distill.heads.resolve import head_of, head_of_checkpoint
from hf_distill.heads.segmentation import SemanticSegmentationHead
from hf_distill.heads.seq2seq import Seq2SeqHead, SpeechSeq2SeqHead


__all__ = [
    "CTCHead",
    "CausalLMHead",
    "DualEncoderHead",
    "EmbeddingHead",
    "FocalObjectDetectionHead",
    "Head",
    "MaskedLMHead",
    "MultiLabelHead",
    "MultipleChoiceHead",
    "NextSentenceHead",
    "ObjectDetectionHead",
    "QuestionAnsweringHead",
    "RegressionHead",
    "SemanticSegmentationHead",
    "Seq2SeqHead",
    "SimilarityHead",
    "SingleLabelHead",
    "SpeechSeq2SeqHead",
    "TokenClassificationHead",
    "head_of",
    "head_of_checkpoint",
]
