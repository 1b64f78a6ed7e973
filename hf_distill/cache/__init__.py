"""What a teacher has said, on disk: what it says of itself, how it is written, and how it is found again."""

from hf_distill.cache.feature_records import FeatureRecords
from hf_distill.cache.manifest import Manifest
from hf_distill.cache.reader import CacheReader, is_cache
from hf_distill.cache.records import DenseRecords, Records, TopKRecords
from hf_distill.cache.row_keys import RealSpan, row_keys
from hf_distill.cache.shards import ROW_FRAME_SIZE
from hf_distill.cache.writer import INDEX_ROW_SIZE, CacheWriter


__all__ = [
    "INDEX_ROW_SIZE",
    "ROW_FRAME_SIZE",
    "CacheReader",
    "CacheWriter",
    "DenseRecords",
    "FeatureRecords",
    "Manifest",
    "RealSpan",
    "Records",
    "TopKRecords",
    "is_cache",
    "row_keys",
]
