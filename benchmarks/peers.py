"""The official code's side: it is unchanged, on random weights.

Runs in a Python that has torch and what the checkouts import.
"""

import functools
import importlib
import pathlib
import pickle
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch

from benchmarks import checkouts, gan_peers, worker

WITHOUT_GRADIENT = (
    *("synthesis", "stylegan3_t", "stylegan3_r"),
    *("clip_forward", "irse50_forward", "apply_mapper"),
)

# Number of a result.
Objective = Callable[[torch.Tensor], torch.Tensor]


def w_plus(spec: worker.Spec, batch: int) -> torch.Tensor:
    rows = 2 * spec.resolution.bit_length() - 4
    return torch.from_numpy(worker.normal((batch, rows, 512)))


def nhwc(image: torch.Tensor) -> torch.Tensor:
    return image.detach().permute(0, 2, 3, 1)


class StyleClip(checkouts.Peer):
    """The official code, its weights, latents and text."""

    def w_plus(self, batch: int) -> torch.Tensor:
        return w_plus(self.spec, batch)

    def generator(self) -> Any:
        model = importlib.import_module("models.stylegan2.model")
        generator = checkouts.stir(model.Generator(self.spec.resolution, 512, 8))
        torch.save({"g_ema": generator.state_dict()}, self.folder / "generator.pt")
        return generator.eval()

    def clip(self) -> Any:
        """The package, whose `load` gives a random ViT-B/32 as it would a real one."""
        clip: Any = importlib.import_module("clip")
        model = importlib.import_module("clip.model")
        vit_b_32 = checkouts.stir(
            model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
        )
        # As in OpenAI's files; on a CPU they are read into float32.
        model.convert_weights(vit_b_32)
        state = vit_b_32.state_dict()
        torch.save(state, self.folder / "clip.pt")
        loaded = model.build_model(state).float(), clip.clip._transform(224)
        clip.load = lambda name, **options: loaded
        return clip

    def face(self) -> Any:
        irse = importlib.import_module("models.facial_recognition.model_irse")
        backbone = checkouts.stir(irse.Backbone(112, 50, mode="ir_se", drop_ratio=0.6))
        torch.save(backbone.state_dict(), self.folder / "irse50.pt")
        return backbone.eval()

    def save_all(self) -> None:
        """Weights of all networks, for programs that read them from files."""
        self.generator()
        self.clip()
        self.face()

    def coach(self) -> Any:
        """An official trainer of mappers without its data, log and checkpoints."""
        self.save_all()
        # Only the trainer's constructor uses it.
        checkouts.do_without("torch.utils.tensorboard", "SummaryWriter")
        training = importlib.import_module("mapper.training.coach")
        network = importlib.import_module("mapper.styleclip_mapper")
        coach = object.__new__(training.Coach)
        coach.device, coach.global_step = "cpu", 1
        coach.opts = Namespace(
            stylegan_size=self.spec.resolution,
            stylegan_weights=str(self.folder / "generator.pt"),
            ir_se50_weights=str(self.folder / "irse50.pt"),
            checkpoint_path=None,
            mapper_type="LevelsMapper",
            work_in_stylespace=False,
            no_coarse_mapper=False,
            no_medium_mapper=False,
            no_fine_mapper=False,
            optim_name="ranger",
            learning_rate=0.5,
            id_lambda=0.1,
            clip_lambda=1.0,
            latent_l2_lambda=0.8,
            max_steps=checkouts.NEVER,
            image_interval=checkouts.NEVER,
            board_interval=checkouts.NEVER,
            val_interval=checkouts.NEVER,
            save_interval=checkouts.NEVER,
        )
        coach.net = network.StyleCLIPMapper(coach.opts)
        checkouts.stir(coach.net.mapper)
        mapper = {
            f"mapper.{name}": x for name, x in coach.net.mapper.state_dict().items()
        }
        torch.save(
            {"state_dict": mapper, "opts": vars(coach.opts)}, self.folder / "mapper.pt"
        )
        coach.id_loss = training.id_loss.IDLoss(coach.opts).eval()
        coach.clip_loss = training.clip_loss.CLIPLoss(coach.opts)
        coach.latent_l2_loss = torch.nn.MSELoss()
        coach.optimizer = coach.configure_optimizers()
        coach.text_inputs = importlib.import_module("clip").tokenize(worker.PROMPT)
        return coach


def moments(mapper: Any, optimizer: Any) -> Callable[[], torch.Tensor]:
    """Function that gives Ranger's first moments of a mapper's biases.

    These are means of gradients. Its first steps hardly move weights of 100, the
    inverse of the layers' learning rate.
    """
    levels = (mapper.course_mapping, mapper.medium_mapping, mapper.fine_mapping)
    named = [x for level in levels for x in level.named_parameters()]
    biases = [x for name, x in named if name.endswith("bias")]
    return lambda: torch.cat([optimizer.state[x]["exp_avg"] for x in biases])


def repeat(turns: worker.Turns, function: Callable[..., Any], *inputs: Any) -> None:
    for _ in turns:
        turns.result = function(*inputs)


def mean_square(x: torch.Tensor) -> torch.Tensor:
    return torch.mean(x**2)


def first_feature(x: torch.Tensor) -> torch.Tensor:
    """Of features of length 1, whose mean square is constant."""
    return x[:, 0].sum()


def gradient_of(
    objective: Objective, function: Callable[..., torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """Gradient of objective(function(x)) by x."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(objective(function(x)), x)[0]


def synthesis(peer: StyleClip, turns: worker.Turns, *, gradient: bool = False) -> None:
    generator = peer.generator().requires_grad_(False)

    def synthesize(latent: torch.Tensor) -> torch.Tensor:
        return generator([latent], input_is_latent=True, randomize_noise=False)[0]

    latent = peer.w_plus(turns.items)
    if gradient:
        repeat(turns, gradient_of, mean_square, synthesize, latent)
    repeat(turns, lambda x: nhwc(synthesize(x)), latent)


def stylegan3(peer: StyleClip, turns: worker.Turns, *, gradient: bool = False) -> None:
    """NVIDIA's network; on CPUs it computes by its reference operations."""
    networks = checkouts.of_nvidia("networks_stylegan3")
    options = {}
    if peer.spec.question.startswith("stylegan3_r"):
        options = {
            **{"channel_base": 65536, "channel_max": 1024},
            **{"conv_kernel": 1, "use_radial_filters": True},
        }
    generator = checkouts.stir(
        networks.Generator(512, 0, 512, peer.spec.resolution, 3, **options)
    )
    generator.eval().requires_grad_(False)
    path = peer.folder / "generator.pkl"
    path.write_bytes(pickle.dumps({"G_ema": generator}))
    latent = torch.from_numpy(worker.normal((turns.items, generator.num_ws, 512)))
    if gradient:
        repeat(turns, gradient_of, mean_square, generator.synthesis, latent)
    repeat(turns, lambda x: nhwc(generator.synthesis(x)), latent)


def optimization(
    peer: StyleClip, turns: worker.Turns, *, id_lambda: float = 0.0
) -> None:
    """The official script takes one latent."""
    turns.items = 1
    peer.save_all()
    source = peer.w_plus(1)
    torch.save(source, peer.folder / "latent.pt")
    script: Any = importlib.import_module("optimization.run_optimization")
    script.tqdm = lambda steps: checkouts.Bar(turns)

    def adam(latents: list[torch.Tensor], **options: Any) -> torch.optim.Adam:
        turns.result = lambda: latents[0].detach() - source
        return torch.optim.Adam(latents, **options)

    script.optim = Namespace(Adam=adam)
    script.main(
        Namespace(
            description=worker.PROMPT,
            ckpt=str(peer.folder / "generator.pt"),
            stylegan_size=peer.spec.resolution,
            lr_rampup=0.05,
            lr=0.1,
            step=300,
            mode="edit",
            l2_lambda=0.008,
            id_lambda=id_lambda,
            latent_path=str(peer.folder / "latent.pt"),
            truncation=0.7,
            work_in_stylespace=False,
            save_intermediate_image_every=0,
            results_dir=str(peer.folder),
            ir_se50_weights=str(peer.folder / "irse50.pt"),
        )
    )


def mapper_training(peer: StyleClip, turns: worker.Turns) -> None:
    coach, latent = peer.coach(), peer.w_plus(turns.items)
    turns.result = moments(coach.net.mapper, coach.optimizer)
    coach.train_dataloader = (latent for _ in turns)
    coach.train()


def apply_mapper(peer: StyleClip, turns: worker.Turns) -> None:
    network = peer.coach().net.eval()
    inference = importlib.import_module("mapper.scripts.inference")
    latent = peer.w_plus(turns.items)
    repeat(turns, lambda: nhwc(inference.run_on_batch(latent, network)[0]))


def _manipulator(peer: StyleClip) -> Any:
    """The official program for directions, with NVIDIA's generator in it."""
    sys.path.insert(0, str(pathlib.Path(peer.spec.peer_dirs[0]) / "global_torch"))
    networks = importlib.import_module("training.networks")
    generator = checkouts.stir(networks.Generator(512, 0, 512, peer.spec.resolution, 3))
    path = peer.folder / "generator.pkl"
    path.write_bytes(pickle.dumps({"G_ema": generator}))
    # It draws pages of results.
    checkouts.do_without("visualizer", "HtmlPageVisualizer")
    module = importlib.import_module("manipulate")
    module.legacy.load_network_pkl = lambda file: {"G_ema": generator}
    manipulator = module.Manipulator()
    manipulator.device = torch.device("cpu")
    manipulator.G = manipulator.LoadModel(str(path), manipulator.device)
    manipulator.SetGParameters()
    manipulator.num_images = peer.spec.batch
    with torch.no_grad():
        styles = manipulator.G.synthesis.W2S(peer.w_plus(peer.spec.batch))
    manipulator.dlatents = manipulator.S2List(styles)
    return manipulator


def apply_direction(peer: StyleClip, turns: worker.Turns) -> None:
    manipulator = _manipulator(peer)
    manipulator.alpha, manipulator.step = [worker.ALPHA], 1
    boundary = [worker.direction(s.shape)[0] for s in manipulator.dlatents]

    def edit() -> np.ndarray:
        codes = manipulator.MSCode(manipulator.dlatents, boundary)
        return manipulator.GenerateImg(codes)[:, 0]

    repeat(turns, edit)


def relevance(peer: StyleClip, turns: worker.Turns) -> None:
    """The first channel of a layer."""
    manipulator = _manipulator(peer)
    script: Any = importlib.import_module("SingleChannel")
    model, preprocess = peer.clip().load("ViT-B/32")
    script.device = "cpu"
    manipulator.alpha, manipulator.step = [-5, 5], 2
    manipulator.code_mean = [np.zeros(s.shape[1]) for s in manipulator.dlatents]
    manipulator.code_std = [np.ones(s.shape[1]) for s in manipulator.dlatents]
    manipulator.manipulate_layers = [worker.RELEVANCE_LAYER]
    manipulator.dlatents[worker.RELEVANCE_LAYER][:, 0] = 0

    def measure() -> np.ndarray:
        _, images = manipulator.EditOneC(0)
        return script.GetImgF(images, model, preprocess)

    repeat(turns, measure)


def clip_image(peer: StyleClip, turns: worker.Turns, *, gradient: bool = False) -> None:
    model, _ = peer.clip().load("ViT-B/32")
    on_image(turns, model.requires_grad_(False).encode_image, gradient and mean_square)


def face(peer: StyleClip, turns: worker.Turns, *, gradient: bool = False) -> None:
    model = peer.face().requires_grad_(False)
    on_image(turns, model, gradient and first_feature, size=112)


def on_image(
    turns: worker.Turns,
    function: Callable[..., torch.Tensor],
    objective: Objective | Literal[False],
    *,
    size: int = 224,
) -> None:
    """Features of images, or the gradient of an objective of them."""
    image = torch.from_numpy(worker.normal((turns.items, size, size, 3)))
    image = image.permute(0, 3, 1, 2).contiguous()
    if objective:
        repeat(turns, lambda: nhwc(gradient_of(objective, function, image)))
    repeat(turns, function, image)


def matmul(peer: StyleClip, turns: worker.Turns) -> None:
    turns.items = 1
    x = torch.from_numpy(worker.normal((worker.MATMUL_SIZE,) * 2))
    repeat(turns, torch.matmul, x, x)


QUESTIONS: dict[str, Callable[[StyleClip, worker.Turns], None]] = {
    "matmul": matmul,
    "synthesis": synthesis,
    "synthesis_gradient": functools.partial(synthesis, gradient=True),
    "stylegan3_t": stylegan3,
    "stylegan3_t_gradient": functools.partial(stylegan3, gradient=True),
    "stylegan3_r": stylegan3,
    "stylegan3_r_gradient": functools.partial(stylegan3, gradient=True),
    "optimization": optimization,
    "optimization_identity": functools.partial(
        optimization, id_lambda=worker.ID_LAMBDA
    ),
    "mapper": mapper_training,
    "training": gan_peers.nvidia,
    "training_narrow": functools.partial(gan_peers.nvidia, narrow=True),
    "training_rosinality": gan_peers.rosinality,
    "apply_mapper": apply_mapper,
    "apply_direction": apply_direction,
    "relevance": relevance,
    "clip_forward": clip_image,
    "clip_gradient": functools.partial(clip_image, gradient=True),
    "irse50_forward": face,
    "irse50_gradient": functools.partial(face, gradient=True),
}


def answer(
    questions: Mapping[str, Callable[[Any, worker.Turns], None]],
    networks: Callable[[worker.Spec], Any],
) -> None:
    """Answers the question that this process was started for.

    Args:
      questions: what to do for each, with the networks; one that takes a single
        example, whatever the batch, says so.
      networks: (spec) → the peer's networks.
    """
    spec, turns = worker.read_spec(), worker.Turns(torch=torch.__version__)
    sys.path[:0] = spec.peer_dirs
    checkouts.stay_on_cpu()
    turns.items = spec.batch
    with torch.set_grad_enabled(spec.question not in WITHOUT_GRADIENT):
        questions[spec.question](networks(spec), turns)


if __name__ == "__main__":
    answer(QUESTIONS, StyleClip)
