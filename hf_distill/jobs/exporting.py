"""A model exported, and tried on the rows of a job."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_distill.export import Export, export_model
from hf_distill.jobs.data import Data
from hf_distill.jobs.models import load_model, load_processor
from hf_distill.jobs.training import LABELS_ALONE, trainer_for
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.trial_batches import collated, sampled_rows


def export(
    name_or_path: str, data: Data, path: str | Path, num_rows: int = 100, batch_size: int = 8, **options: Any
) -> Export:
    """Export a model by [`export_model`], compared with it on rows of the evaluation data, spread evenly.

    Args:
        name_or_path: of the model.
        data: with the rows.
        path: the folder to write.
        num_rows: how many rows.
        batch_size: rows at a time.
        options: further arguments of `export_model`.
    """
    model = load_model(name_or_path, data.task_name)
    processor = load_processor(name_or_path, data.task_name)
    with TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(output_dir=folder, use_cpu=True, dataloader_pin_memory=False)
        trainer = trainer_for(model, data, data.reading(model, processor), args, **LABELS_ALONE)
        rows = sampled_rows(trainer.eval_dataset, num_rows)
        starts = range(0, len(rows), batch_size)
        batches = [collated(trainer, rows[start : start + batch_size], for_evaluation=True) for start in starts]
        batches = [{**batch, **trainer.head.derived_inputs(model, batch)} for batch in batches]
    exported = export_model(model, batches, path, **options)
    processor.save_pretrained(path)
    return exported
