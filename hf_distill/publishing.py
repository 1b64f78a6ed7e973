"""`Trainer`, publishing the student with a card that says how it was made."""

import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub

from hf_distill.model_card import model_card, repository_name
from hf_distill.report import DistillationReport
from hf_distill.term_logging import TermLogging


TRAINING_ARGS = "training_args.bin"
"""The pickled arguments, which hold paths, and may hold a token."""


class Publishing(TermLogging):
    """The half of [`DistillationTrainer`] that writes the model card and pushes to the Hub."""

    def create_model_card(self, *args: Any, report: DistillationReport | None = None, **metadata: Any) -> None:
        """Write the card, `README.md`, into the output folder.

        Args:
            report: whose numbers it shows; the last evaluation of the training by default.
            args, metadata: as in `Trainer.create_model_card`.
        """
        if self.is_world_process_zero():
            names = ("language", "license", "tags", "model_name", "finetuned_from")
            metadata = {**dict(zip(names, args, strict=False)), **metadata}
            self._write_card(Path(str(self.args.output_dir)), report, metadata)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        report: DistillationReport | None = None,
        push_report: bool = False,
        **metadata: Any,
    ) -> Any:
        """Push the student, its processing class and its card, and nothing else of the output folder.

        Args:
            commit_message, blocking, token, revision, private, metadata: as in `Trainer.push_to_hub`.
            report: whose numbers the card shows.
            push_report: whether its page, its plots and its JSON are pushed too, as `report/`. They hold rows of the
                evaluation data.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        folder = tempfile.TemporaryDirectory(prefix="hf_distill-push-")
        self.save_model(folder.name, _internal_call=True)
        if not self.is_world_process_zero():
            return None
        (Path(folder.name) / TRAINING_ARGS).unlink(missing_ok=True)
        self._write_card(Path(folder.name), report, metadata)
        if report is not None and push_report:
            report.save(Path(folder.name) / "report")
        self._finish_current_push()
        pushed: Any = huggingface_hub.HfApi().upload_folder(
            repo_id=str(self.hub_model_id),
            folder_path=folder.name,
            commit_message=commit_message,
            token=token,
            run_as_future=not blocking,  # type: ignore[call-overload]  # typed for literals alone
            revision=revision if revision is not None else self.args.hub_revision,
        )
        if blocking:
            folder.cleanup()
        else:
            pushed.add_done_callback(lambda _: folder.cleanup())
        return pushed

    def _write_card(self, folder: Path, report: DistillationReport | None, metadata: dict[str, Any]) -> None:
        tags = metadata.get("tags") or []
        own = getattr(self.model, "model_tags", None) or []
        metadata = {**metadata, "tags": [*([tags] if isinstance(tags, str) else tags), *own]}
        repo_id = repository_name(
            getattr(self, "hub_model_id", None) or self.args.hub_model_id, str(self.args.output_dir)
        )
        folder.mkdir(parents=True, exist_ok=True)
        model_card(self, repo_id, report, **metadata).save(folder / "README.md")
