"""What is said of each option, wherever it can be given; needs neither pydantic nor torch.

`--help` is made of these sentences.  The handbook's table of keys and the docstrings of the Python
interface have them too, as text that an editor shows without running anything: a test holds them
equal.  Which values an option takes stands with its check, in `config`.
"""

from __future__ import annotations

from collections.abc import Mapping

# where a run writes, and where commands look for a run's outputs
DEFAULT_FOLDER = "camviz-out"

OPTION_INFO: Mapping[str, str] = {
    "model": "embedded, any timm or torchvision classifier (timm/NAME, torchvision/NAME, "
    "hf-hub:ORG/NAME, local-dir:PATH), one of transformers (hf:ORG/NAME, a folder), or your own "
    "(FILE.py:FUNCTION); default embedded.",
    "checkpoint": "Your own weights: .pth, .pt or .safetensors.",
    "pretrained": "The model's published weights, or random ones; default pretrained.",
    "strict": "Refuse a checkpoint with missing or unexpected keys; default strict.",
    "compare": "Another model of the same classes, or other weights of this one, beside it on one "
    "scale, with the difference of their maps, and a sheet.",
    "num_classes": "Classes of the model's head.",
    "img_size": "Input size in pixels; default the model's.",
    "model_kwargs": "Arguments of the model's constructor.",
    "class_map": "Class names: a name a line, index,name, or JSON.",
    "output_key": "Where your own model's logits are in the tuple or dictionary that it returns.",
    "outputs": "What the outputs mean: logits, probabilities (of one class), independent (several "
    "classes at once) or value (a real number); default measured.",
    "like": "Pictures to compare with, in the place of classes: what makes them alike.",
    "text": "What to look for, in words, in the place of classes; for models of pictures and "
    "words.",
    "template": "What is made of each text, which stands in the place of {}; default the text "
    "alone.",
    "likeness": "How embeddings are compared: cosine, or the negative distance l1 or l2; default "
    "cosine.",
    "target_layers": "Layers to explain at (layer4, blocks.-1.norm1); default found by measuring.",
    "layer_fusion": "Several layers: mean, max, product, refine (RefineCAM), or none for a map "
    "each; default mean.",
    "vit_like": "The layer puts out tokens, or does not; default measured.",
    "num_extra_tokens": "Tokens that are no part of the grid, such as the class token; default "
    "measured.",
    "method": "Names of methods, see camviz methods; default gradcam.",
    "best_for": "What the method best is best for: evidence (where the score comes from), extent "
    "(what the object covers) or balanced; default balanced.",
    "layers_sweep": "Explain the model layer by layer, from its coarsest grid to finer ones, and "
    "draw a sheet.",
    "combine": "Make one map of several methods, each at the target layers or, as METHOD@LAYER, at "
    "one of its own: product or mean.",
    "target_category": "Classes to explain, by index or name; default the predicted one.",
    "top_k": "Explain the K best classes.",
    "threshold": "Explain all classes of at least this probability, or else the likeliest.",
    "target": "What is explained of the class: logit, probability, log-probability, rest, "
    "counterfactual (what speaks against it) or contrast; default logit.",
    "contrast": "Why this class and not those; with the target contrast, by default, the 3 most "
    "similar.",
    "contrast_strength": "How much of the other classes' mean logit is taken away; default 0.6.",
    "set": "Options of the methods, or of one: METHOD.NAME.",
    "max_channels": "Only the K channels with the highest mean activation, for a quick look.",
    "aug_smooth": "Average over flips and brightness changes.",
    "eigen_smooth": "First principal component of the weighted channels in place of their sum.",
    "noise_smooth": "Average over N noisy copies of the picture.",
    "noise_sigma": "That noise's deviation, as a share of the picture's range; default 0.15.",
    "seed": "Seed for methods and noise drawn at random; default 0.",
    "recursive": "Look into the folders in a folder, too; default recursive.",
    "preprocessing": "What overrules the model's own preprocessing.",
    "mean": "Mean of the input's channels, 0..1, or one for all; default the model's.",
    "std": "Standard deviation of the channels, or one for all; default the model's.",
    "interpolation": "How a picture is resized; default the model's.",
    "fit": "What the network sees of the picture: crop, squash or pad; default the model's.",
    "crop_pct": "The share of the shorter edge that is in view; default the model's.",
    "device": "auto, cpu, cuda, cuda:N or mps; default auto.",
    "batch_size": "Pictures in one pass, or copies that a method alters (32); auto finds what "
    "fits; default 8.",
    "max_pixels": "Refuse pictures of more pixels before they are decoded (50M, 1G); default "
    "178956970.",
    "max_memory": "Memory for pictures that are read, drawn and written at once (2G, 30%); one "
    "that needs more goes alone; default 50% of what is free.",
    "workers": "Threads that read, draw and write beside the model, 0 for none; default one a "
    "core, at most 8; beside a model on the CPU they work between its passes.",
    "processes": "Processes in place of these threads, where a fast GPU waits for pictures; see "
    "camviz help speed; default 0.",
    "engine": "local, or ray: workers on a Ray cluster, or on this machine's GPUs or cores; see "
    "camviz help clusters; default local.",
    "ray_workers": "Workers of --engine ray, each with a model; default one a GPU, or a core.",
    "precision": "float32, bf16, fp16, or auto: bf16 where a GPU has it; default float32.",
    "compile": "Compile the model first, for long runs; see camviz help speed.",
    "every": "Every n-th frame; of an animated picture, too.",
    "frames": "Frames from A up to B, without B, counted from 0: 10:50, :50, 10:.",
    "camera": "Explain what a camera sees; the first is 0.",
    "smooth_frames": "Let maps follow each other over about N frames.",
    "save_frames": "Write the frames of a video as pictures as well.",
    "colormap": "jet, turbo, viridis, inferno, ...; default jet.",
    "alpha": "How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.",
    "outside": "What the network did not see of the picture: dim, keep (as it is) or crop (away); "
    "default dim.",
    "caption": "Write the class and its probability below the picture, or each frame of a video.",
    "scale": "Which raw values the colours span: each image's own, one scale for the run, or "
    "MIN,MAX; default image.",
    "boxes": "Draw and record boxes around what is hot: the largest region's, or all.",
    "box_threshold": "What is hot: above this share of the map's maximum; default 0.2.",
    "contour": "Draw the outline of what is hot.",
    "export": "Write the boxes of a run's pictures into the output folder: coco, voc or yolo.",
    "sheet": "Draw the run's pictures and maps as one figure with colour bars: a .png, .svg or "
    ".pdf file; see camviz help figures.",
    "save_path": f"A folder, or a file for a single picture or video; default {DEFAULT_FOLDER}.",
    "format": "jpg or png; default the input's own.",
    "save_map": "Write the raw map as well: npy, npz, png16 (16 bits of grey) or tif (float32).",
    "map_size": "The raw map's size: layer, input or image; default layer.",
    "map_outside": "What a map of the picture's size has outside the network's view: nan or zero; "
    "default nan.",
    "save_mask": "Write a mask (.mask-SHARE.png) of what is above this share of the map's maximum.",
    "mask_percentile": "Write a mask (.mask-pP.png) of what is above this percentile of the map, "
    "and above zero.",
    "report": "Make a page of the folder's heatmaps at the end (.html), as camviz report does.",
    "resume": "Go on with the run that was cut off in this folder; see camviz help runs.",
    "skip_existing": "Pass over pictures that these options explained, and try failed ones again.",
    "fail_fast": "Stop at the first picture that fails.",
    "max_failures": "Stop when more than N pictures failed.",
}
