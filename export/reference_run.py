"""The run that a build is measured by: of an engine, or of what goes beside one."""

from pathlib import Path

from ..engine.progress import Progress
from .job import Job, models_of, tokenizers_of
from .job_keys import reference_key
from .reference.enlarged import run_enlarged
from .reference.hinted import run_hinted
from .reference.pictured import run_pictured
from .reference.run import Reference, run_reference
from .reference.store import ReferenceStore
from .reference.tiny import with_tiny_decoder


def reference_of(job: Job, folder: Path, progress: Progress) -> Reference:
    """The unquantized run, or what an interrupted build left of it and the rest."""
    companion = job.assembly.companion
    if companion is not None and companion.ip_adapter is not None:
        return run_pictured(job.assembly, companion, progress)
    if companion is not None and companion.t2i_adapter is not None:
        return run_hinted(job.assembly, companion, progress)
    if companion is not None and companion.upscaler is not None:
        return run_enlarged(job.assembly, companion.upscaler, progress)
    store = ReferenceStore(folder, reference_key(job))
    models, tokenizers = models_of(job.assembly), tokenizers_of(job)
    made = run_reference(models, tokenizers, job.assembly, job.recipe.calibration, job.size, store, progress)
    return with_tiny_decoder(made, job.assembly)
