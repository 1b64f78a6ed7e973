"""Evidence of a distillation: what the student kept of its teacher, what it lost, and what it saves."""

from hf_distill.report.build import distillation_report
from hf_distill.report.results import DistillationReport


__all__ = ["DistillationReport", "distillation_report"]
