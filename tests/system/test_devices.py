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
from segkey.system import out_of_memory
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
