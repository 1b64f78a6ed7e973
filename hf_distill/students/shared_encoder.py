"""A student that hears with the teacher's ears: its encoder is the teacher's own."""

from transformers import PreTrainedModel

from hf_distill.errors import UnsupportedModelError


def share_encoder(student: PreTrainedModel, teacher: PreTrainedModel) -> PreTrainedModel:
    """The student with the teacher's encoder in place of its own: the same module, frozen.

    A decoder writes token by token and costs most of the time, so a student of few decoder layers may well keep the
    whole encoder. In training it then runs once for both. The student is saved with it, and loads alone.

    Args:
        student: an encoder–decoder, which is changed in place.
        teacher: another, whose configuration must describe the same encoder.

    Returns:
        The student.

    Raises:
        UnsupportedModelError: if one of the two is no encoder–decoder, or the encoders differ in their weights, or an
            encoder shares weights with its decoder, which could then not be trained.

    References:
        Gandhi, von Platen, Rush: Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling, 2023,
        https://arxiv.org/abs/2311.00430, section 3.
    """
    for who, model in {"student": student, "teacher": teacher}.items():
        if not model.config.is_encoder_decoder:
            raise UnsupportedModelError(
                f"the {who} {type(model).__name__} is no encoder–decoder, so it has no encoder to share. Share "
                "encoders between models such as Whisper."
            )
    own, shared = student.get_encoder(), teacher.get_encoder()
    shapes = [{name: tuple(weight.shape) for name, weight in each.named_parameters()} for each in (own, shared)]
    if shapes[0] != shapes[1]:
        name = next(name for name in [*shapes[0], *shapes[1]] if shapes[0].get(name) != shapes[1].get(name))
        raise UnsupportedModelError(
            f"the encoders differ: {name!r} has the shape {shapes[0].get(name)} in the student and "
            f"{shapes[1].get(name)} in the teacher. Configure the student with the teacher's encoder."
        )
    of_encoder = {id(weight): name for name, weight in shared.named_parameters()}
    outside = [name for name, weight in _outside(teacher, shared) if id(weight) in of_encoder]
    if outside:
        raise UnsupportedModelError(
            f"the encoder of {type(teacher).__name__} shares weights with its decoder ({outside[0]!r}), which the "
            "student could then not train. Give the student the encoder's weights instead: "
            "`student.get_encoder().load_state_dict(teacher.get_encoder().state_dict())`."
        )
    path = next(name for name, module in student.named_modules() if module is own)
    student.set_submodule(path, shared.requires_grad_(False))
    return student


def _outside(model: PreTrainedModel, encoder: object) -> list[tuple[str, object]]:
    """The parameters that modules outside of the encoder hold, shared ones too."""
    inside = {id(module) for module in encoder.modules()}  # type: ignore[attr-defined]
    return [
        (f"{name}.{key}", weight)
        for name, module in model.named_modules()
        if id(module) not in inside
        for key, weight in module.named_parameters(recurse=False, remove_duplicate=False)
    ]
