"""What 8 bits cost with adapters on the miniature: `python -m benchmarks.adapters [--pictures N] [--work FOLDER]`.

The bundled `int8` engine against one in float32 of the same checkpoints, picture by picture: plain, and with each thing
that people put beside an engine. `psnr_db` is of all pictures' mean squared error; `lost_db` is how much less than
plain; `changed_db` is how far the float32 pictures are from the plain ones, lest nothing was added. There is no trained
ControlNet or adapter for the miniature: the ControlNet is the U-Net's own way down with random last convolutions, the
T2I adapter, the IP-Adapter and its image encoder are random, the wide LoRA random pairs on all attention layers; the
narrow LoRA is the trained one that is bundled.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine import Pipeline
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.export.build import build
from pocketxl.export.companions.controlnet import build_controlnet
from pocketxl.export.companions.ip_adapter import build_ip_adapter
from pocketxl.export.companions.t2i_adapter import build_t2i_adapter
from pocketxl.export.miniature.sample import CONTACT_SHEET

from .report import Record, finish

WEIGHTS = Path(__file__).parent.parent / "export" / "miniature" / "weights"
LORA = FOLDER.parent / "loras" / "blueprint.safetensors"
SIDE, STEPS, RANK = 128, 12, 8
CALL: Mapping[str, Any] = {"num_inference_steps": STEPS, "output_type": "np"}
RECIPES = ("int8", "fp32")


def main() -> None:
    """Build what is not there, make every case's pictures with both engines, print the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--work", type=Path, help="folder that keeps engine and ControlNets for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pocketxl-") as aside:
        work = options.work or Path(aside)
        work.mkdir(parents=True, exist_ok=True)
        given = _given(work, options.pictures)
        made = {recipe: _pictures(work, recipe, options.pictures, given) for recipe in RECIPES}
    records, plain = [], _decibels(made["int8"]["plain"], made["fp32"]["plain"])
    for case, exact in made["fp32"].items():
        figures = {"psnr_db": _decibels(made["int8"][case], exact)}
        figures["lost_db"] = plain - figures["psnr_db"]
        if case != "plain":
            figures["changed_db"] = _decibels(exact, made["fp32"]["plain"])
        for metric, value in figures.items():
            records.append(Record(case=case, system="pocketxl-int8", metric=metric, value=value, unit="dB"))
        sys.stderr.write(f"{case}: {', '.join(f'{name} {value:.2f}' for name, value in figures.items())}\n")
    finish("adapters", records, extra={"pictures": options.pictures, "steps": STEPS})


def _given(work: Path, count: int) -> dict[str, Any]:
    """What the cases take: LoRA files, and the bundled engine's own pictures of other seeds."""
    with Pipeline.load() as pipe:
        openings = read_manifest(FOLDER).components["base/unet"].openings
        assert openings is not None
        _random_lora(work / "wide.safetensors", openings.layers["attention"])
        made = [pipe(prompt, seed=50 + i, **CALL).images[0] for i, prompt in enumerate(CONTACT_SHEET[:count])]
    return {"wide": work / "wide.safetensors", "narrow": LORA, "pictures": made}


def _pictures(work: Path, recipe: str, count: int, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Case → `[count, height, width, 3]`."""
    engine = None if recipe == "int8" else work / recipe
    if engine is not None and not engine.exists():
        build(WEIGHTS / "base", engine, refiner=WEIGHTS / "refiner", recipe=recipe)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1
    beside: dict[str, Any] = {
        "controlnets": {"net": _controlnet(work, recipe)},
        "t2i_adapters": {"adapter": _t2i_adapter(work, recipe)},
        "ip_adapter": _ip_adapter(work, recipe),
    }
    with Pipeline.load(engine, threads=1, **beside) as pipe:

        def made(**more: Any) -> np.ndarray:
            found = []
            for index, prompt in enumerate(CONTACT_SHEET[:count]):
                here = {name: value[index] if isinstance(value, list) else value for name, value in more.items()}
                found.append(pipe(prompt, seed=index, **CALL, **here).images[0])
            return np.stack(found)

        picture = given["pictures"]
        control = {"control_image": picture, "control_preprocess": "canny", "controlnet_conditioning_scale": 0.7}
        return {
            "plain": made(),
            "lora_trained": made(loras={given["narrow"]: 1.0}),
            "lora_random_rank_8": made(loras={given["wide"]: 0.8}),
            "controlnet": made(**control),
            "t2i_adapter": made(adapter_image=picture, adapter_preprocess="canny"),
            "ip_adapter": made(ip_adapter_image=picture, ip_adapter_scale=0.6),
            "kept_features_2": made(deep_cache=2),
            "kept_features_3": made(deep_cache=3),
            "image_to_image": made(image=picture, strength=0.6),
            "inpainting": made(image=picture, mask_image=mask, strength=0.9),
            "all_together": made(image=picture, strength=0.8, loras={given["narrow"]: 0.7}, **control),
        }


def _random_lora(path: Path, layers: Mapping[str, tuple[int, ...]]) -> None:
    """Pairs for all of them, under PEFT's names."""
    from safetensors.numpy import save_file

    random, tensors = np.random.default_rng(0), {}
    for layer, shape in layers.items():
        size = shape[1] ** -0.5
        tensors[f"unet.{layer}.lora_A.weight"] = random.standard_normal((RANK, shape[1]), np.float32) * np.float32(size)
        tensors[f"unet.{layer}.lora_B.weight"] = random.standard_normal((shape[0], RANK), np.float32) * np.float32(0.3)
    save_file(tensors, path)


def _controlnet(work: Path, recipe: str) -> Path:
    """Its folder, built for this recipe."""
    source, folder = work / "controlnet-source", work / f"controlnet-{recipe}"
    if not source.exists():
        import torch
        from diffusers import ControlNetModel, UNet2DConditionModel

        torch.manual_seed(0)
        net = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(WEIGHTS / "base" / "unet"))
        ends = [*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out]
        for module in ends:  # which begin at zero
            torch.nn.init.normal_(module.weight, std=2.0 * module.weight[0].numel() ** -0.5)
        net.save_pretrained(source)
    if not folder.exists():
        build_controlnet(source, folder, base=WEIGHTS / "base", recipe=recipe)
    return folder


def _t2i_adapter(work: Path, recipe: str) -> Path:
    """Its folder, built for this recipe."""
    source, folder = work / "t2i-adapter-source", work / f"t2i-adapter-{recipe}"
    if not source.exists():
        import torch
        from diffusers import T2IAdapter

        torch.manual_seed(0)
        widths = json.loads((WEIGHTS / "base" / "unet" / "config.json").read_bytes())["block_out_channels"]
        adapter = T2IAdapter(
            in_channels=3, channels=[*widths, widths[-1]], downscale_factor=16, adapter_type="full_adapter_xl"
        )
        for module in adapter.modules():  # what it begins with hardly changes a picture
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.normal_(module.weight, std=1.4 * module.weight[0].numel() ** -0.5)
        adapter.save_pretrained(source)
    if not folder.exists():
        build_t2i_adapter(source, folder, base=WEIGHTS / "base", recipe=recipe)
    return folder


def _ip_adapter(work: Path, recipe: str) -> Path:
    """Its folder, built for this recipe: a plain one, for an encoder of pictures of 32 × 32 pixels."""
    source, encoder, folder = work / "ip-adapter.safetensors", work / "image-encoder", work / f"ip-adapter-{recipe}"
    if not source.exists():
        import torch
        from diffusers import UNet2DConditionModel
        from safetensors.torch import save_file
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_pretrained(WEIGHTS / "base" / "unet")
        text, tokens, width = int(unet.config.cross_attention_dim), 4, 48
        tensors = {
            "image_proj.proj.weight": torch.randn(tokens * text, width) / width**0.5,
            "image_proj.proj.bias": torch.zeros(tokens * text),
            "image_proj.norm.weight": torch.ones(text),
            "image_proj.norm.bias": torch.zeros(text),
        }
        crossing = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
        for index, name in enumerate(crossing):
            channels = unet.get_submodule(name).to_k.weight.shape[0]
            for part, size in (("k", 1), ("v", 3)):  # as much as changes a picture without destroying it
                weight = size * torch.randn(channels, text) / text**0.5
                tensors[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"] = weight
        config = CLIPVisionConfig(
            hidden_size=64, intermediate_size=96, projection_dim=width, num_hidden_layers=3, num_attention_heads=2,
            image_size=32, patch_size=8,
        )  # fmt: skip
        CLIPVisionModelWithProjection(config).save_pretrained(encoder)
        save_file(tensors, source)
    if not folder.exists():
        build_ip_adapter(source, folder, image_encoder=encoder, base=WEIGHTS / "base", recipe=recipe)
    return folder


def _decibels(found: np.ndarray, expected: np.ndarray) -> float:
    """Of values in [0, 1]."""
    return -10 * float(np.log10(np.square(found - expected).mean()))


if __name__ == "__main__":
    main()
