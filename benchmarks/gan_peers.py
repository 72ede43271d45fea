"""The official side of trainings of generators: NVIDIA's loop, and rosinality's.

Noise, style mixing and data are left out, and directions are given, as their draws
would be others than ours.
"""

import copy
import importlib
import itertools
import pickle
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks import checkouts, worker


def nvidia(peer: checkouts.Peer, turns: worker.Turns, *, narrow: bool = False) -> None:
    """NVIDIA's losses in its loop; on CPUs they compute by its reference operations."""
    networks, losses = map(checkouts.of_nvidia, ("networks_stylegan2", "loss"))
    size, batch = peer.spec.resolution, turns.items
    dim, base = (worker.GAN_WIDTH, worker.GAN_CHANNELS) if narrow else (512, 2**15)
    widths = {"channel_base": base, "channel_max": dim}
    generator = checkouts.stir(networks.Generator(dim, 0, dim, size, 3, **widths))
    judge = checkouts.stir(networks.Discriminator(0, size, 3, **widths))
    averaged = copy.deepcopy(generator).eval()
    content = {"G": generator, "G_ema": averaged, "D": judge}
    (peer.folder / "generator.pkl").write_bytes(pickle.dumps(content))

    _give_draws()
    torch.randn = lambda shape, **options: torch.zeros(shape)
    loss = losses.StyleGAN2Loss(
        "cpu",
        generator,
        judge,
        r1_gamma=worker.GAN_GAMMA,
        pl_weight=worker.GAN_PATH_WEIGHT,
    )
    optimizers = _optimizers(generator, judge)
    for network in optimizers:
        network.train().requires_grad_(False)
    phases = (
        *(("Gmain", generator, 1), ("Greg", generator, worker.GAN_PATHS_EVERY)),
        *(("Dmain", judge, 1), ("Dreg", judge, worker.GAN_R1_EVERY)),
    )
    z = torch.from_numpy(worker.normal((batch, dim)))
    reals = _reals(size, batch)
    labels = torch.zeros(batch, 0)
    turns.result, images = _moved(judge, worker.GAN_COMPARED), 0
    for _ in turns:
        for step in range(worker.GAN_STEPS):
            for phase, network, every in phases:
                if step % every:
                    continue
                network.requires_grad_(True)
                optimizers[network].zero_grad(set_to_none=True)
                loss.accumulate_gradients(
                    phase, reals, labels, z, labels, every, images
                )
                network.requires_grad_(False)
                for x in network.parameters():
                    if x.grad is not None:
                        torch.nan_to_num(x.grad, 0, 1e5, -1e5, out=x.grad)
                optimizers[network].step()
            images += batch
            _blend(averaged, generator, 0.5 ** (batch / worker.GAN_EMA_IMAGES))


def rosinality(peer: checkouts.Peer, turns: worker.Turns) -> None:
    """Rosinality's own loop; on CPUs it computes by its native operations."""
    # Kernels for GPUs are compiled when they are imported, and data lies in LMDB.
    importlib.import_module("torch.utils.cpp_extension").load = lambda *_, **__: None
    checkouts.do_without("lmdb", "open")
    model, loop = map(importlib.import_module, ("model", "train"))
    size, batch, dim = peer.spec.resolution, turns.items, 512
    generator = checkouts.stir(model.Generator(size, dim, 8, channel_multiplier=2))
    judge = checkouts.stir(model.Discriminator(size, channel_multiplier=2))
    averaged = copy.deepcopy(generator).eval()
    named = {"g": generator, "d": judge, "g_ema": averaged}
    content = {name: network.state_dict() for name, network in named.items()}
    torch.save(content, peer.folder / "generator.pt")

    _give_draws()
    torch.randn = lambda *shape, **options: torch.from_numpy(worker.normal(shape))
    # Noise of the layers.
    torch.Tensor.normal_ = torch.Tensor.zero_
    optimizers = _optimizers(generator, judge)
    turns.result = _moved(judge, _parameters_of_rosinality(size))
    reals = _reals(size, batch)
    loop.tqdm = lambda steps, **options: _Steps(turns)
    loop.train(
        Namespace(
            iter=checkouts.NEVER,
            start_iter=0,
            batch=batch,
            latent=dim,
            mixing=0.0,
            r1=worker.GAN_GAMMA,
            d_reg_every=worker.GAN_R1_EVERY,
            path_regularize=worker.GAN_PATH_WEIGHT,
            path_batch_shrink=2,
            g_reg_every=worker.GAN_PATHS_EVERY,
            augment=False,
            augment_p=0.0,
            distributed=False,
            n_sample=1,
            wandb=False,
        ),
        (reals.clone() for _ in itertools.count()),
        generator,
        judge,
        *optimizers.values(),
        averaged,
        "cpu",
    )


class _Steps(checkouts.Bar):
    """Numbers of steps: those of a turn, again and again.

    The first has each regularization, and none is a multiple of 100, at which the loop
    writes a sheet.
    """

    def __iter__(self) -> Iterator[int]:
        for _ in self.turns:
            for step in range(worker.GAN_STEPS):
                yield worker.GAN_R1_EVERY + step


def _parameters_of_rosinality(size: int) -> Sequence[str]:
    """Names of the parameters that are compared, in rosinality's discriminator."""
    last = f"convs.{size.bit_length() - 3}"
    return (
        *(f"{last}.conv1.1.bias", f"{last}.conv2.2.bias"),
        *("final_conv.1.bias", "final_linear.0.bias"),
    )


def _give_draws() -> None:
    """Has images that are drawn be the same on both sides."""
    torch.randn_like = lambda x: torch.from_numpy(worker.normal(tuple(x.shape)))


def _reals(size: int, batch: int) -> torch.Tensor:
    return torch.from_numpy(worker.normal((batch, 3, size, size)))


def _optimizers(
    generator: torch.nn.Module, judge: torch.nn.Module
) -> dict[torch.nn.Module, torch.optim.Optimizer]:
    """Adam with the lazy correction for both networks."""
    optimizers = {}
    intervals = (worker.GAN_PATHS_EVERY, worker.GAN_R1_EVERY)
    for network, every in zip((generator, judge), intervals, strict=True):
        ratio = every / (every + 1)
        optimizers[network] = torch.optim.Adam(
            network.parameters(),
            lr=worker.GAN_RATE * ratio,
            betas=(0.0, 0.99**ratio),
            eps=1e-8,
        )
    return optimizers


def _moved(judge: torch.nn.Module, names: Sequence[str]) -> Callable[[], torch.Tensor]:
    """Function that gives how far parameters have moved since now."""
    compared = [judge.get_parameter(name) for name in names]
    before = [x.detach().clone() for x in compared]

    def moved() -> torch.Tensor:
        pairs = zip(compared, before, strict=True)
        return torch.cat([x.detach() - old for x, old in pairs])

    return moved


@torch.no_grad()
def _blend(averaged: torch.nn.Module, latest: torch.nn.Module, decay: float) -> None:
    """Moves averaged parameters towards the latest ones; buffers are copied."""
    for mean, x in zip(averaged.parameters(), latest.parameters(), strict=True):
        mean.copy_(x.lerp(mean, decay))
    for mean, x in zip(averaged.buffers(), latest.buffers(), strict=True):
        mean.copy_(x)
