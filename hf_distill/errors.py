"""What can be wrong, each error also a builtin one, so that `except ValueError` keeps working."""


class DistillationError(Exception):
    """Base of every error that hf_distill raises on purpose.

    A message says what is wrong with both values, why if that is not obvious, and what to do, naming the argument.
    """


class ConfigurationError(DistillationError, ValueError):
    """Arguments that contradict each other or lie outside their range. All faults are reported at once."""


class MissingTeacherError(DistillationError, ValueError):
    """A term reads a teacher, and there is none (or the student is its own teacher)."""


class ClassMismatchError(DistillationError, ValueError):
    """Student and teacher do not choose between the same classes."""


class VocabularyMismatchError(DistillationError, ValueError):
    """One token id stands for different strings in the student and the teacher."""


class LengthMismatchError(DistillationError, ValueError):
    """Student and teacher give another number of positions, frames or pixels, or vectors of another width."""


class MissingInputError(DistillationError, ValueError):
    """A batch lacks something that a term or a model reads."""


class EmptyDatasetError(DistillationError, ValueError):
    """A data set without a single row."""


class UnsupportedModelError(DistillationError, TypeError):
    """A model that we do not know how to compare with another, or to make a student of."""


class ExportMismatchError(DistillationError, ArithmeticError):
    """An exported program answers otherwise than its model."""


class UntrainedTeacherError(DistillationError, ValueError):
    """A teacher some of whose weights were never trained."""


class CacheMismatchError(DistillationError, ValueError):
    """A cache of a teacher's answers that were given by another teacher, or to other inputs."""


class DamagedCacheError(DistillationError, OSError):
    """Files of a cache that are not as they were written."""


class TeacherServerError(DistillationError, ConnectionError):
    """A teacher's server that does not answer, or whose answer makes no sense."""


class CheckpointError(DistillationError, OSError):
    """A checkpoint that is damaged, or that cannot be written."""


class NonFiniteError(DistillationError, FloatingPointError):
    """A loss that is infinite or no number."""
