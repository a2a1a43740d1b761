"""A device whose memory does not suffice for a batch: cut in micro-batches, said, and with the same
result."""

import gc
import weakref

import pytest
import torch
from making import trained

from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import evaluation, networks, recipes
from segkey.model.batches import BatchLoader
from segkey.model.training_loop import Settings, Trainer
from segkey.shards import open_splits
from segkey.system import devices, distributed, out_of_memory
from segkey.system.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture
def small_memory(monkeypatch):
    """``small_memory(n)``: from now on the network runs out of memory with more than n images;
    lists what fitted."""
    forward = networks.Segmenter.forward

    def limit(most: int) -> list[int]:
        fitted = []

        def limited(self, pixels):
            if len(pixels) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            fitted.append(len(pixels))
            return forward(self, pixels)

        monkeypatch.setattr(networks.Segmenter, "forward", limited)
        return fitted

    return limit


class Listening(Progress):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def train(shards, folder, listener, **how):
    return trained(shards, folder, batch_size=8, progress=listener, **how)


def test_training_goes_on_in_micro_batches_with_the_same_batch_and_says_so(
    tmp_path, shards_folder, small_memory
):
    listener, fitted = Listening(), small_memory(3)
    run = train(shards_folder, tmp_path, listener)
    assert run.configuration.epochs_done == 2
    told = [line for line in listener.said if "ran out of memory: steps" in line]
    assert [line.split("batches of 8, their gradients added up ")[1] for line in told] == [
        "in micro-batches of 4 images",
        "in micro-batches of 2 images",
    ]
    assert any(
        "batches are scored in micro-batches of 2" in line for line in listener.said
    )  # validation, 4 images
    trial, *steps = fitted  # a network of a plug-in is tried on one image first
    assert trial == 1
    # batches of 8 and of 4, and 4 images of validation
    assert steps == [2, 2, 2, 2, 2, 2, 2, 2] * 2


def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(shards_folder, small_memory):
    """Where nothing looks at the batch as a whole: batch normalisation and dropout are as in
    evaluation."""
    splits = open_splits([shards_folder], ("train", "val"))
    recipe = recipes.recipe("scratch", batch_size=8)
    trainer = Trainer(splits, Settings(recipe, "thin", precise=True), CPU)
    trainer.model.eval()
    ((images, masks),) = list(trainer.train_loader.batches(12))
    losses, gradients = [], []
    for most in (12, 4):
        small_memory(most)
        losses.append(trainer.micro_batches.run(trainer.gradients, images, masks))
        gradients.append([p.grad.clone() for p in trainer.model.parameters()])
    assert trainer.micro_batches.largest == 3
    assert torch.allclose(*losses, rtol=1e-5)
    for whole, micro_batches in zip(*gradients, strict=True):
        assert torch.allclose(whole, micro_batches, rtol=1e-3, atol=1e-6)


def test_scores_are_the_same_in_micro_batches_and_it_is_said_once(
    trained_run, shards_folder, small_memory
):
    model, split = trained_run.load_model(CPU), open_splits([shards_folder], ("test",))["test"]
    whole = evaluation.score(model, BatchLoader(split, CPU), 255)
    fitted, loader = small_memory(3), BatchLoader(split, CPU)
    with pytest.warns(
        SegkeyWarning, match="ran out of memory: batches are scored in micro-batches of 3 images"
    ) as told:
        matrices = [evaluation.score(model, loader, 255).matrix for _ in range(2)]
    assert len(told) == 1
    assert fitted == [3, 3] * 2
    assert all(torch.equal(matrix, whole.matrix) for matrix in matrices)


def test_one_image_that_does_not_fit_is_an_error_with_advice(tmp_path, shards_folder, small_memory):
    small_memory(0)
    with pytest.raises(SegkeyError, match="does not hold one image of 32x32 .*\n.*--network"):
        train(shards_folder, tmp_path, Listening(), network="resnet14")  # not tried beforehand


def test_what_filled_the_memory_is_let_go_before_the_next_try():
    class Big:
        pass

    alive, batch = [], torch.zeros(4, 1, 1, 1)

    def work(micro_batches):
        gc.collect()
        assert not [each for each in alive if each() is not None]
        big = Big()
        alive.append(weakref.ref(big))
        if len(micro_batches[0][0]) > 1:
            raise torch.OutOfMemoryError
        return len(micro_batches)

    assert out_of_memory.MicroBatches("", lambda text: None).run(work, batch, batch) == 4
    assert len(alive) == 3


@pytest.mark.parametrize(
    "text", ["MPS backend out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"]
)
def test_memory_errors_that_are_only_words(text):
    tried = []

    def work(micro_batches):
        tried.append(len(micro_batches))
        if len(micro_batches) == 1:
            raise RuntimeError(text)

    out_of_memory.MicroBatches("", tried.append).run(
        work, torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1)
    )
    assert (tried[0], tried[2]) == (1, 2)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(micro_batches):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        out_of_memory.MicroBatches("").run(work, torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1))


@pytest.mark.parametrize(
    "name", ["cuda:99", "cuda:-1", "mps:3", "meta", "tpu", "", "CPU", "cpu ", "gpu"]
)
def test_a_device_that_is_not_here_is_answered_with_those_that_are(name):
    with pytest.raises(SegkeyError, match=f"there is no device '{name}' here") as refused:
        devices.choose(name)
    assert "cpu" in refused.value.hint
    assert "--device auto" in refused.value.hint


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_kind_that_is_there(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if cuda else 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.choose().type == chosen
    assert devices.choose("cpu").type == "cpu"
    assert devices.computes_in(torch.device("cpu"), precise=True) == "float32"


@pytest.mark.parametrize(
    ("ranks", "gpus", "name", "what"),
    [
        (2, 2, "cuda:0", "2 ranks cannot share cuda:0"),
        (4, 2, "cuda", "has 2 GPUs for 4 ranks"),
        (2, 1, "cuda", "has 1 GPU for 2 ranks"),
    ],
)
def test_ranks_that_have_no_gpu_of_their_own_are_told(monkeypatch, ranks, gpus, name, what):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(distributed, "is_single", lambda: False)
    monkeypatch.setattr(distributed, "require_same", lambda values: None)
    monkeypatch.setattr(distributed, "local_size", lambda: ranks)
    with pytest.raises(SegkeyError, match=what):
        devices.choose(name)


def test_a_rank_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(distributed, "is_single", lambda: False)
    monkeypatch.setattr(distributed, "require_same", lambda values: None)
    monkeypatch.setattr(distributed, "local_size", lambda: 4)
    monkeypatch.setattr(distributed, "local_rank", lambda: 3)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert devices.choose("cuda") == torch.device("cuda:3")
    assert taken == [3]


def test_a_part_of_the_free_memory_is_for_data(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 << 30, 80 << 30))
    assert devices.free_memory(torch.device("cuda")) == 5 << 30
    values = {"SC_AVPHYS_PAGES": 3000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", values.get, raising=False)
    assert devices.free_memory(CPU) == 4096 * 1000

    def refuse(name):
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", refuse, raising=False)
    assert devices.free_memory(CPU) == 2 << 30


@pytest.mark.parametrize(
    ("count", "limit", "sizes"),
    [
        (8, 8, [8]),
        (8, 7, [4, 4]),
        (9, 4, [3, 3, 3]),
        (7, 1, [1] * 7),
        (1, 1, [1]),
    ],
)
def test_micro_batches_become_half_as_large_until_they_fit_and_stay_so(count, limit, sizes):
    said, tried = [], []
    batches = out_of_memory.MicroBatches("batches are scored", said.append)

    def work(parts):
        tried.append([len(images) for images, _ in parts])
        if tried[-1][0] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([images for images, _ in parts]), torch.cat([mask for _, mask in parts])

    images, masks = torch.arange(count * 3).view(count, 3, 1, 1), torch.arange(count)
    for _ in range(2):
        found, kept = batches.run(work, images, masks)
        assert torch.equal(found, images)
        assert torch.equal(kept, masks)
        assert tried[-1] == sizes
    assert tried.count(sizes) == 2
    assert len(said) == len(tried) - 2
    assert all("ran out of memory: batches are scored in micro-batches" in text for text in said)
    if said:
        assert said[-1].endswith(f"of {sizes[0]} image{'s' * (sizes[0] != 1)}")
        assert batches.largest == sizes[0]
    else:
        assert batches.largest is None
