"""What `engine.json` says must agree with itself: an engine that a build wrote always does.

Its digest proves that the text is whole, not that it makes sense; whoever changes a number by hand can write a new one.
Everything behind `read_manifest` trusts the content, so all of it is held together here: numbers within bounds first,
so that nothing long is derived from a wrong one, then the models among each other, then every component to the edge
that follows from the models, and its files to its place.
"""

import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..architecture import FAMILIES, SDXL, ModelArchitecture, Models, tokenizer_of
from ..bounds import TEXT_ENCODER, UNET, VAE, VAE_LEVELS, outside
from ..errors import IncompatibleError, IntegrityError
from ..specs import ComponentSpec
from ..tiny import BOUNDS as TINY
from .activation import MOST_BYTES, activation_faults
from .companion_checks import companion_faults, level_faults
from .files import FileEntry, lexical_path
from .opening_checks import opening_faults
from .openings import files_of
from .variants import loaded_bytes

if TYPE_CHECKING:
    from .manifest import ComponentEntry, Manifest, Streaming

KINDS = ({"base"}, {"base", "refiner"})
MORE_BITS = {"layers", "bytes", "time"}
MOST_CHARACTERS = 300
"""Of a layer's name."""
MOST_THREADS = 1 << 16
MOST_HALVINGS = 126  # float32 has no more
MEASURED_ON = ("engine", "stand_in")
MOST_LENGTH = 1 << 20
"""Of a dimension."""
_ARCHITECTURE = re.compile(r"sm\d{2,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(manifest: "Manifest", where: str) -> None:
    """Raise `IntegrityError` for the first thing in a manifest that contradicts another, or is out of bounds.

    `IncompatibleError` for models of another family. `where` names the file in messages.
    """
    if manifest.models.family not in FAMILIES:
        raise IncompatibleError(
            f"{where} is an engine of the family {reprlib.repr(manifest.models.family)}, this release runs "
            f"{', '.join(FAMILIES)}; "
            "install a newer pocketxl"
        )
    fault = next(_faults(manifest), None)
    if fault is not None:
        raise IntegrityError(
            f"{where} contradicts itself: {fault}; build the engine again with `pocketxl build`, or copy the folder "
            "again"
        )


def model_faults(models: Models) -> Iterator[str]:
    """What is out of bounds among the numbers of the models, then where they contradict each other."""
    yield from _numbers(models)
    yield from _agreement(models)


def _faults(manifest: "Manifest") -> Iterator[str]:
    """In this order: each part relies on those before."""
    models = manifest.models
    if manifest.companion is None or manifest.companion.upscaler is None:
        yield from (f"models.{fault}" for fault in model_faults(models))
    if manifest.companion is not None:
        yield from (f"companion{fault}" for fault in companion_faults(manifest.companion, models))
    wanted = (manifest.companion or models).components()
    yield from _names("components", manifest.components, wanted)
    for name, entry in manifest.components.items():
        yield from (f"components.{name}: {fault}" for fault in _component(entry, wanted[name]))
    used = () if manifest.companion else models.text_encoders
    tokenizers = dict.fromkeys(map(tokenizer_of, used))
    yield from _names("tokenizers", manifest.tokenizers, tokenizers)
    yield from _files(manifest)


def _numbers(models: Models) -> Iterator[str]:
    """What is out of bounds by itself."""
    for kind, model in models.denoisers.items():
        yield from (f"denoisers.{kind}.unet.{fault}" for fault in outside(model.unet, UNET))
    for name, encoder in models.text_encoders.items():
        yield from (f"text_encoders.{name}.{fault}" for fault in outside(encoder, TEXT_ENCODER))
        if encoder.eos_token_id >= encoder.vocab_size:
            yield f"text_encoders.{name}.eos_token_id is {encoder.eos_token_id}, its words end below that"
    yield from (f"vae.{fault}" for fault in outside(models.vae, VAE))
    if len(models.vae.block_out_channels) != VAE_LEVELS:
        yield f"vae.block_out_channels has {len(models.vae.block_out_channels)} levels, it must be {VAE_LEVELS}"
    colours = models.latent_colours
    if colours and [*map(len, colours)] != [3] * (models.vae.latent_channels + 1):
        yield f"latent_colours are {len(colours)} rows; one of 3 numbers a channel, and one more, is allowed"
    if not all(math.isfinite(value) for row in colours for value in row):
        yield "latent_colours have numbers that are not finite"
    if models.tiny_decoder is not None:
        yield from (f"tiny_decoder.{fault}" for fault in outside(models.tiny_decoder, TINY))


def _agreement(models: Models) -> Iterator[str]:
    """Where the models contradict each other."""
    if set(models.denoisers) not in KINDS:
        kinds = reprlib.repr(sorted(models.denoisers))
        yield f"denoisers are {kinds}, a base with or without a refiner is allowed"
    if models.family != SDXL and "refiner" in models.denoisers:
        yield f"the family is {models.family}, which has no refiner"
    for kind, model in models.denoisers.items():
        yield from (f"denoisers.{kind}{fault}" for fault in _denoiser(kind, model, models))
    if not models.encodes and any(m.unet.inpaints(models.vae.latent_channels) for m in models.denoisers.values()):
        yield "denoisers paint into pictures, which needs the VAE's encoder"
    used = {name for model in models.denoisers.values() for name in model.text_encoders}
    yield from _names("text_encoders", models.text_encoders, used)
    tiny, vae = models.tiny_decoder, models.vae
    if tiny is not None and (tiny.latent_channels, tiny.downscale) != (vae.latent_channels, vae.downscale):
        yield (
            f"tiny_decoder takes {tiny.latent_channels} channels and grows {tiny.downscale}-fold, "
            f"the VAE {vae.latent_channels} and {vae.downscale}-fold"
        )


def _denoiser(kind: str, model: ModelArchitecture, models: Models) -> Iterator[str]:
    unet = model.unet
    if model.kind != kind:
        yield f".kind is {reprlib.repr(model.kind)}"
    yield from (f".unet{fault}" for fault in level_faults(unet))
    latents = models.vae.latent_channels
    if unet.out_channels != latents or not (unet.in_channels == latents or unet.inpaints(latents)):
        yield (
            f".unet takes {unet.in_channels} and gives {unet.out_channels} channels, the VAE's latents have "
            f"{models.vae.latent_channels}"
        )
    yield from _text(model, models)


def _text(model: ModelArchitecture, models: Models) -> Iterator[str]:
    """The text encoders give what the U-Net takes; the pooled state is the last one's."""
    names, unet = model.text_encoders, model.unet
    if not names or len(set(names)) != len(names) or not set(names) <= set(models.text_encoders):
        yield f".text_encoders are {reprlib.repr(names)}, models has {reprlib.repr(sorted(models.text_encoders))}"
        return
    encoders = [models.text_encoders[name] for name in names]
    width, pooled = sum(encoder.hidden_size for encoder in encoders), encoders[-1].projection_dim
    added = unet.addition_time_embed_dim, unet.projection_class_embeddings_input_dim
    sized = unet.size_ids is not None
    if sized != (models.family == SDXL) or set(map(bool, added)) != {sized}:
        yield f".unet.size_ids is {unet.size_ids}, with {added} numbers of them, in the family {models.family}"
    if width != unet.cross_attention_dim:
        yield f".unet.cross_attention_dim is {unet.cross_attention_dim}, the text encoders give {width}"
    if pooled != unet.pooled_dim or bool(pooled) != sized:
        yield f".unet takes {unet.pooled_dim} numbers of pooled text, {names[-1]} gives {pooled}"


def _component(entry: "ComponentEntry", wanted: ComponentSpec) -> Iterator[str]:
    """What is wrong with one component, beside its files' places."""
    if entry.spec.role is not wanted.role:
        yield f"spec.role is {entry.spec.role}, of these models it is {wanted.role}"
    for side in ("inputs", "outputs"):
        for i, (tensor, other) in enumerate(zip_longest(getattr(entry.spec, side), getattr(wanted, side))):
            if tensor != other:
                yield f"spec.{side}[{i}] is {reprlib.repr(tensor)}, of these models it is {other}"
    yield from _variants(entry)
    held = loaded_bytes(entry.files, entry.architectures, files_of(entry.openings))
    if not entry.files or entry.weight_bytes != held:
        yield f"weight_bytes is {reprlib.repr(entry.weight_bytes)}, its {len(entry.files)} files have {held}"
    yield from activation_faults("activation", entry.activation)
    if entry.streaming is not None:
        yield from _streaming(entry.streaming, entry)
    if entry.openings is not None:
        yield from (f"openings{fault}" for fault in opening_faults(entry.openings, entry))
    limit = entry.max_relative_error
    if limit is not None and not 0 <= limit < math.inf:
        yield f"max_relative_error is {limit}, a finite number from 0 is allowed"
    if not 0 <= entry.int8_bytes <= entry.weight_bytes:
        yield f"int8_bytes is {reprlib.repr(entry.int8_bytes)}, 0 to weight_bytes is allowed"
    if entry.exact_threads is not None and not 1 <= entry.exact_threads <= MOST_THREADS:
        yield f"exact_threads is {reprlib.repr(entry.exact_threads)}, 1 to {MOST_THREADS} is allowed"
    if entry.key and not _SHA256.fullmatch(entry.key):
        yield f"key is {reprlib.repr(entry.key)}, a sha256 is allowed"
    names = [name for listed in entry.formats.values() for name in listed]
    if len(set(names)) != len(names) or any(len(text) > MOST_CHARACTERS for text in (*names, *entry.formats)):
        yield f"formats name {len(names)} layers; each once, in {MOST_CHARACTERS} characters at most, is allowed"
    if entry.more_bits and not (
        set(entry.more_bits) == MORE_BITS and all(map(math.isfinite, entry.more_bits.values()))
    ):
        yield f"more_bits is {reprlib.repr(dict(entry.more_bits))}; finite {', '.join(sorted(MORE_BITS))} are allowed"
    if any(len(name) > MOST_CHARACTERS or abs(k) > MOST_HALVINGS for name, k in entry.halvings.items()):
        yield f"halvings are {reprlib.repr(dict(entry.halvings))}, at most {MOST_HALVINGS} are allowed"
    if entry.quality_of not in MEASURED_ON:
        yield f"quality_of is {reprlib.repr(entry.quality_of)}, {' or '.join(MEASURED_ON)} is allowed"


def _variants(entry: "ComponentEntry") -> Iterator[str]:
    """What is wrong with the GPU generations of its files, and with the sizes that they take."""
    files = {file.name for file in entry.files}
    for name, found in entry.architectures.items():
        if name not in files:
            yield f"architectures name {reprlib.repr(name)}, which is none of its files"
        if not found or not all(map(_ARCHITECTURE.fullmatch, found)):
            yield f"architectures of {reprlib.repr(name)} are {reprlib.repr(found)}, names like sm89 are allowed"
    everywhere = [name for found in entry.architectures.values() for name in found]
    if len(set(everywhere)) != len(everywhere):
        yield f"architectures are {reprlib.repr(sorted(everywhere))}, each may stand once"
    symbols = entry.spec.symbols()
    for symbol, range_ in entry.ranges.items():
        if symbol not in symbols or len(range_) != 2 or not 1 <= range_[0] <= range_[1] <= MOST_LENGTH:
            yield (
                f"ranges have {reprlib.repr(symbol)}: {reprlib.repr(range_)}; a least and a most of one of "
                f"{', '.join(symbols)} are allowed"
            )


def _streaming(streaming: "Streaming", entry: "ComponentEntry") -> Iterator[str]:
    """Every segment is a file of the component, once, and its weights lie within the component's."""
    yield from activation_faults("streaming.activation", streaming.activation)
    yield from activation_faults("streaming.carried", streaming.carried)
    names = [segment.file for segment in streaming.segments]
    names += [streaming.program] if streaming.program else []
    known = {PurePosixPath(file.path).name for file in entry.files}
    if not names or len(set(names)) != len(names) or not set(names) <= known:
        yield f"streaming.segments are {reprlib.repr(names)}, each must be a file of the component, once"
    for segment in streaming.segments:
        if segment.start < 0 or segment.size < 0 or segment.start + segment.size > entry.weight_bytes:
            yield f"streaming has {segment.size} bytes of weights at {segment.start}, beyond the component's"


def _files(manifest: "Manifest") -> Iterator[str]:
    """Every file once, in the folder of what it belongs to."""
    for name, entry in manifest.components.items():
        yield from _placed(f"components.{name}", name, (*entry.files, *([entry.sample] if entry.sample else [])))
    for name, files in manifest.tokenizers.items():
        yield from _placed(f"tokenizers.{name}", name, files)


def _placed(where: str, folder: str, files: Iterable[FileEntry]) -> Iterator[str]:
    seen = set()
    for file in files:
        lexical_path(Path(), file.path)
        if PurePosixPath(file.path).parent != PurePosixPath(folder) or file.path in seen:
            yield f"{where} names the file {reprlib.repr(file.path)}, it must lie in {folder}/ and be named once"
        if not _SHA256.fullmatch(file.sha256) or not 0 <= file.size <= MOST_BYTES:
            yield f"{where}: sha256 or size of {reprlib.repr(file.path)} is none"
        seen.add(file.path)


def _names(where: str, found: Mapping[str, object], wanted: Iterable[str]) -> Iterator[str]:
    """A mapping that should have other keys."""
    lacking, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if lacking or more:
        yield f"{where} lacks {reprlib.repr(lacking)} and has {reprlib.repr(more)} beyond what the models need"
