"""Reading what a model computes on the way to its outputs, in one ordinary forward."""

from hf_distill.feature_reading.checkpointing import check_checkpointing
from hf_distill.feature_reading.reader import FeatureReader, outputs_and_features, reader_of
from hf_distill.feature_reading.stacks import anatomy_of


__all__ = ["FeatureReader", "anatomy_of", "check_checkpointing", "outputs_and_features", "reader_of"]
