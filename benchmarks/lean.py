"""The best torch that a careful user would write, by the official weights.

Weights are frozen, and whatever depends on them alone is computed once. Modulation is
of activations, so that the batch shares one convolution, and images are channels last.
As "compiled" each function is given to `torch.compile`. The text is encoded, and the
mapper and its optimizer are made, by the official code.
"""

import functools
import importlib
import math
import pathlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks import peers, worker

_State = Mapping[str, torch.Tensor]
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
# Blocks of IR-SE50 that halve the image.
_HALVING = (0, 3, 7, 21)
_BN_EPSILON = 1e-5


class _Frozen(torch.nn.Module):
    """Module whose tensors are buffers."""

    def keep(self, **tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, tensor)


def _part(state: _State, prefix: str) -> dict[str, torch.Tensor]:
    """Tensors below a name."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def _per_channel(x: torch.Tensor) -> torch.Tensor:
    return x[..., None, None]


class _Affine(_Frozen):
    """Style of a latent, by the layer "modulation"."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        weight = state["weight"]
        self.keep(weight=weight / math.sqrt(weight.shape[1]), bias=state["bias"])

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return F.linear(w, self.weight, self.bias)


class _Convolution(_Frozen):
    """Modulated 3×3 convolution, noise, bias and activation.

    The activation's gain of √2 is in what goes into it, which is the same since leaky
    ReLU is homogeneous.
    """

    def __init__(self, state: _State, noise: torch.Tensor, *, upsample: bool) -> None:
        super().__init__()
        weight = state["conv.weight"][0]
        kernel = weight / math.sqrt(9 * weight.shape[1])
        self.affine = _Affine(_part(state, "conv.modulation"))
        self.upsample = upsample
        self.keep(
            power=torch.sum(kernel**2, (2, 3)),
            noise=math.sqrt(2) * state["noise.weight"] * noise,
            bias=math.sqrt(2) * _per_channel(state["activate.bias"])[None],
            kernel=kernel.transpose(0, 1) if upsample else kernel,
        )
        if upsample:
            fir = _FIR[:, None] * _FIR
            self.keep(fir=fir.repeat(len(kernel), 1, 1, 1))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        style = self.affine(w)
        gain = math.sqrt(2) * torch.rsqrt(F.linear(style**2, self.power) + 1e-8)
        x = x * _per_channel(style)
        if self.upsample:
            x = F.conv_transpose2d(x, self.kernel, stride=2)
            x = F.conv2d(x, self.fir, padding=1, groups=len(self.fir))
        else:
            x = F.conv2d(x, self.kernel, padding=1)
        x = torch.addcmul(self.noise, x, _per_channel(gain)).add_(self.bias)
        return F.leaky_relu_(x, 0.2)


class _ToRGB(_Frozen):
    """Modulated 1×1 convolution; three columns are less to modulate than an image."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        weight = state["conv.weight"][0, :, :, 0, 0]
        self.affine = _Affine(_part(state, "conv.modulation"))
        self.keep(kernel=weight / math.sqrt(weight.shape[1]), bias=state["bias"])

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        kernels = _per_channel(self.affine(w)[:, None] * self.kernel)
        pairs = zip(x.split(1), kernels, strict=True)
        return (
            torch.cat([F.conv2d(image, kernel) for image, kernel in pairs]) + self.bias
        )


def _upsample_rgb(x: torch.Tensor) -> torch.Tensor:
    """Doubling by the FIR [1, 3, 3, 1]: bilinear, with zeros around the image."""
    x = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")
    return x[..., 2:-2, 2:-2]


class Synthesis(_Frozen):
    """Images [B, 3, H, W] of W+."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        noises = _part(state, "noises")
        names = [f"convs.{i}" for i in range(len(noises) - 1)]
        self.keep(const=state["input.input"])
        self.convolutions = torch.nn.ModuleList(
            _Convolution(_part(state, name), noises[f"noise_{i}"], upsample=i % 2 == 1)
            for i, name in enumerate(["conv1", *names])
        )
        self.to_rgb = torch.nn.ModuleList(
            _ToRGB(_part(state, name))
            for name in ["to_rgb1", *(f"to_rgbs.{i}" for i in range(len(names) // 2))]
        )

    def forward(self, w_plus: torch.Tensor) -> torch.Tensor:
        x = self.convolutions[0](
            self.const.expand(len(w_plus), -1, -1, -1), w_plus[:, 0]
        )
        rgb = self.to_rgb[0](x, w_plus[:, 1])
        for i in range(1, len(self.convolutions), 2):
            x = self.convolutions[i](x, w_plus[:, i])
            x = self.convolutions[i + 1](x, w_plus[:, i + 1])
            rgb = _upsample_rgb(rgb) + self.to_rgb[(i + 1) // 2](x, w_plus[:, i + 2])
        return rgb


class _TransformerBlock(_Frozen):
    def __init__(self, state: _State) -> None:
        super().__init__()
        self.heads = len(state["ln_1.bias"]) // 64
        self.keep(**{name.replace(".", "_"): x for name, x in state.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        y = F.layer_norm(x, shape[-1:], self.ln_1_weight, self.ln_1_bias)
        y = F.linear(y, self.attn_in_proj_weight, self.attn_in_proj_bias)
        y = y.view(*shape[:2], 3, self.heads, 64).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*y.unbind()).transpose(1, 2).reshape(shape)
        x = x + F.linear(y, self.attn_out_proj_weight, self.attn_out_proj_bias)
        y = F.layer_norm(x, shape[-1:], self.ln_2_weight, self.ln_2_bias)
        y = F.linear(y, self.mlp_c_fc_weight, self.mlp_c_fc_bias)
        y = y * torch.sigmoid(1.702 * y)
        return x + F.linear(y, self.mlp_c_proj_weight, self.mlp_c_proj_bias)


class Vision(_Frozen):
    """CLIP's features [B, D] of images [B, 3, H, W]: ViT-B/32."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        state = {name: x.float() for name, x in _part(state, "visual").items()}
        position = state["positional_embedding"]
        self.keep(
            patch=state["conv1.weight"],
            first=(state["class_embedding"] + position[0])[None, None],
            position=position[1:],
            pre_weight=state["ln_pre.weight"],
            pre_bias=state["ln_pre.bias"],
            post_weight=state["ln_post.weight"],
            post_bias=state["ln_post.bias"],
            projection=state["proj"],
        )
        blocks = _numbered(_part(state, "transformer.resblocks"))
        self.blocks = torch.nn.ModuleList(map(_TransformerBlock, blocks))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(image, self.patch, stride=self.patch.shape[-1])
        x = x.flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        x = F.layer_norm(x, x.shape[-1:], self.pre_weight, self.pre_bias)
        for block in self.blocks:
            x = block(x)
        x = F.layer_norm(x[:, 0], x.shape[-1:], self.post_weight, self.post_bias)
        return x @ self.projection


def _numbered(state: _State) -> Iterable[dict[str, torch.Tensor]]:
    """Parts "0", "1", …"""
    count = 1 + max(int(name.split(".")[0]) for name in state)
    return (_part(state, str(index)) for index in range(count))


def _scale_shift(state: _State) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm with frozen statistics is x·scale + shift."""
    scale = state["weight"] * torch.rsqrt(state["running_var"] + _BN_EPSILON)
    return scale, state["bias"] - state["running_mean"] * scale


def _folded(kernel: torch.Tensor, norm: _State) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias of a convolution and the norm behind it."""
    scale, shift = _scale_shift(norm)
    return kernel * scale[:, None, None, None], shift


class _FaceBlock(_Frozen):
    """Norm, convolution, PReLU, convolution, norm and gate; all norms are in kernels.

    Zeros around the image come behind the first norm, so its shift is a map that
    differs along the border.
    """

    def __init__(self, state: _State, size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        scale, shift = _scale_shift(_part(state, "res_layer.0"))
        first = state["res_layer.1.weight"]
        shifts = _per_channel(shift)[None].expand(1, -1, size, size)
        second, bias = _folded(state["res_layer.3.weight"], _part(state, "res_layer.4"))
        self.keep(
            first=first * scale[:, None, None],
            first_map=F.conv2d(shifts, first, padding=1),
            slope=state["res_layer.2.weight"],
            second=second,
            bias=bias,
            squeeze=state["res_layer.5.fc1.weight"][..., 0, 0],
            excite=state["res_layer.5.fc2.weight"][..., 0, 0],
        )
        self.has_shortcut = "shortcut_layer.0.weight" in state
        if self.has_shortcut:
            kernel = state["shortcut_layer.0.weight"]
            kernel, shift = _folded(kernel, _part(state, "shortcut_layer.1"))
            self.keep(shortcut=kernel, shortcut_bias=shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.first, padding=1).add_(self.first_map)
        y = F.conv2d(
            F.prelu(y, self.slope), self.second, self.bias, self.stride, padding=1
        )
        gate = F.relu(F.linear(y.mean((2, 3)), self.squeeze))
        gate = torch.sigmoid(F.linear(gate, self.excite))
        if self.has_shortcut:
            x = F.conv2d(x, self.shortcut, self.shortcut_bias, self.stride)
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        return torch.addcmul(x, y, _per_channel(gate))


class Face(_Frozen):
    """Identity features [B, 512] of faces [B, 3, 112, 112]: IR-SE50."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        kernel, bias = _folded(
            state["input_layer.0.weight"], _part(state, "input_layer.1")
        )
        size, blocks = 112, []
        for index, part in enumerate(_numbered(_part(state, "body"))):
            stride = 2 if index in _HALVING else 1
            blocks.append(_FaceBlock(part, size, stride))
            size //= stride
        self.blocks = torch.nn.Sequential(*blocks)
        before, shift = _scale_shift(_part(state, "output_layer.0"))
        after, last = _scale_shift(_part(state, "output_layer.4"))
        weight = state["output_layer.3.weight"]
        dense = weight.view(len(weight), -1, size * size)
        shifted = (
            torch.sum(dense * shift[:, None], (1, 2)) + state["output_layer.3.bias"]
        )
        self.keep(
            kernel=kernel,
            bias=bias,
            slope=state["input_layer.2.weight"],
            dense=(dense * before[:, None]).flatten(1) * after[:, None],
            dense_bias=shifted * after + last,
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.prelu(F.conv2d(image, self.kernel, self.bias, padding=1), self.slope)
        x = self.blocks(x)
        return F.normalize(F.linear(x.flatten(1), self.dense, self.dense_bias))


class Lean:
    """Networks, latents and text of one question."""

    def __init__(self, spec: worker.Spec) -> None:
        self.spec = spec
        self.folder = pathlib.Path(spec.folder)

    @functools.cached_property
    def w_plus(self) -> torch.Tensor:
        return peers.w_plus(self.spec, self.spec.batch)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled where that is asked for."""
        return torch.compile(function) if self.spec.side == "compiled" else function

    def synthesis(self) -> Synthesis:
        return Synthesis(torch.load(self.folder / "generator.pt")["g_ema"]).eval()

    def vision(self) -> Vision:
        return Vision(torch.load(self.folder / "clip.pt")).eval()

    def face(self) -> Face:
        return Face(torch.load(self.folder / "irse50.pt")).eval()

    def text(self) -> torch.Tensor:
        """Normalised features of the prompt."""
        clip: Any = importlib.import_module("clip")
        model = importlib.import_module("clip.model")
        network = model.build_model(torch.load(self.folder / "clip.pt")).float()
        with torch.no_grad():
            return F.normalize(network.encode_text(clip.tokenize(worker.PROMPT)))

    def clip_loss(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Distance of images from the text, [B]."""
        scale = torch.load(self.folder / "clip.pt")["logit_scale"].float().exp() / 100
        vision, text = self.vision(), self.text()
        resize = _official_resize(self.spec.resolution)

        def distance(image: torch.Tensor) -> torch.Tensor:
            return 1 - scale * F.cosine_similarity(vision(resize(image)), text)

        return distance


def _official_resize(size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Repetition of pixels sevenfold, then means of size / 32: a product per axis."""
    rows = torch.eye(size).repeat_interleave(7, 0).view(224, size // 32, size).mean(1)
    return lambda image: rows @ image @ rows.T


def _face_crop(image: torch.Tensor) -> torch.Tensor:
    if image.shape[-1] != 256:
        image = F.adaptive_avg_pool2d(image, 256)
    return F.adaptive_avg_pool2d(image[:, :, 35:223, 32:220], 112)


def synthesis(lean: Lean, turns: worker.Turns, *, gradient: bool = False) -> None:
    synthesize = lean.compiled(lean.synthesis())
    if gradient:
        peers.repeat(
            turns, peers.gradient_of, peers.mean_square, synthesize, lean.w_plus
        )
    peers.repeat(turns, lambda x: peers.nhwc(synthesize(x)), lean.w_plus)


def optimization(lean: Lean, turns: worker.Turns, *, id_lambda: float = 0.0) -> None:
    script: Any = importlib.import_module("optimization.run_optimization")
    synthesize, clip_loss = lean.synthesis(), lean.clip_loss()
    source = lean.w_plus
    if id_lambda:
        face = lean.face()
        with torch.no_grad():
            identity = face(_face_crop(synthesize(source)))

    def loss_of(latent: torch.Tensor) -> torch.Tensor:
        image = synthesize(latent)
        total = clip_loss(image).sum() + 0.008 * torch.sum((latent - source) ** 2)
        if id_lambda:
            distance = 1 - torch.sum(face(_face_crop(image)) * identity, 1)
            total = total + id_lambda * distance.sum()
        return total

    compiled = lean.compiled(loss_of)
    latent = source.clone().requires_grad_()
    adam = torch.optim.Adam([latent], lr=0.1)
    turns.result = lambda: (latent.detach() - source)[:1]
    for step in turns:
        adam.param_groups[0]["lr"] = script.get_lr(step / 300, 0.1)
        adam.zero_grad()
        compiled(latent).backward()
        adam.step()


def mapper_training(lean: Lean, turns: worker.Turns) -> None:
    mappers = importlib.import_module("mapper.latent_mappers")
    ranger = importlib.import_module("mapper.training.ranger")
    kept = torch.load(lean.folder / "mapper.pt")
    mapper = mappers.LevelsMapper(Namespace(**kept["opts"]))
    mapper.load_state_dict(_part(kept["state_dict"], "mapper"))
    synthesize, clip_loss, face = lean.synthesis(), lean.clip_loss(), lean.face()
    latent = lean.w_plus

    @torch.no_grad()
    def identity_of(latent: torch.Tensor) -> torch.Tensor:
        return face(_face_crop(synthesize(latent)))

    def loss_of(delta: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        edited = latent + 0.1 * delta
        image = synthesize(edited)
        likeness = torch.sum(face(_face_crop(image)) * identity, 1)
        loss = 0.1 * (1 - likeness) + clip_loss(image)
        return loss.mean() + 0.8 * F.mse_loss(edited, latent)

    identity_of, loss_of = lean.compiled(identity_of), lean.compiled(loss_of)
    optimizer = ranger.Ranger(mapper.parameters(), lr=0.5)
    turns.result = peers.moments(mapper, optimizer)
    for _ in turns:
        identity = identity_of(latent)
        optimizer.zero_grad()
        loss_of(mapper(latent), identity).backward()
        optimizer.step()


def clip_image(lean: Lean, turns: worker.Turns, *, gradient: bool = False) -> None:
    vision = lean.compiled(lean.vision())
    peers.on_image(turns, vision, gradient and peers.mean_square)


def face(lean: Lean, turns: worker.Turns, *, gradient: bool = False) -> None:
    network = lean.compiled(lean.face())
    peers.on_image(turns, network, gradient and peers.first_feature, size=112)


QUESTIONS: dict[str, Callable[[Lean, worker.Turns], None]] = {
    "synthesis": synthesis,
    "synthesis_gradient": functools.partial(synthesis, gradient=True),
    "optimization": optimization,
    "optimization_identity": functools.partial(
        optimization, id_lambda=worker.ID_LAMBDA
    ),
    "mapper": mapper_training,
    "clip_forward": clip_image,
    "clip_gradient": functools.partial(clip_image, gradient=True),
    "irse50_forward": face,
    "irse50_gradient": functools.partial(face, gradient=True),
}


if __name__ == "__main__":
    peers.answer(QUESTIONS, Lean)
