"""Keywords that others know, and what is to be given here instead."""

ADVICE = {
    "steps": "use num_inference_steps", "cfg_scale": "use guidance_scale", "cfg": "use guidance_scale",
    "n": "use num_images_per_prompt", "batch_size": "use num_images_per_prompt", "size": "use width and height",
    "scheduler": "use sampler and schedule", "aspect_ratio": "use size_of(...) for width and height",
    "return_dict": "the result always has .images",
    "callback_on_step_end_tensor_inputs": "callbacks get the latents",
    "callback": "use callback_on_step_end",
    "init_image": "use image", "mask": "use mask_image", "denoising_strength": "use strength",
    "masked_image_latents": "they are made of image and mask_image",
    "ip_adapter_image_embeds": "give ip_adapter_image",
    "cross_attention_kwargs": "use loras",
}  # fmt: skip
