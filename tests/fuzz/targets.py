"""Every reader of files, with what must hold whatever is in the file.

The oracle is `Target.run`: a file loads, and then as an independent reader reads it, or it is
refused by an exception that the documentation names, and then nothing has changed.
"""

import contextlib
import gzip
import io
import json
import math
import pickle
import random
import re
import struct

import mutations
import numpy as np
from safetensors.numpy import save as safetensors_bytes

from tinygrad_mnist import (
    SGD,
    BatchNorm,
    Conv2d,
    DataLoader,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2d,
    MSELoss,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from tinygrad_mnist.data import mnist
from tinygrad_mnist.interop.safetensors import import_safetensors
from tinygrad_mnist.training import History, checkpoint, fit
from tinygrad_mnist.training.checkpoint import CheckpointError, load_model, save_model


class Target:
    """A reader of one file. Write `seeds`, `mutate`, `read`, `check`."""

    refusals = (ValueError,)  # these types, not those derived from them

    def __init__(self, folder):
        self.folder, self.path, self.data = folder, folder / "file", b""
        self.reset()

    def reset(self):
        """Make the objects that are read into, always alike."""

    def state(self):
        """Return all that a refusal must leave as it was."""

    def put(self):
        self.path.write_bytes(self.data)

    def run(self, data):
        """Return whether the file loads; raise whatever must not be."""
        self.data = data
        self.put()
        before, refusal = self.state(), None
        try:
            loaded = self.read()
        except self.refusals as error:
            if type(error) not in self.refusals:
                raise
            refusal = str(error)
        if refusal is None:
            self.check(loaded)
            self.reset()
            return True
        assert re.match(r"[\w.]+: expected .+, got ", refusal, re.DOTALL), refusal
        assert self.state() == before
        return False


class Idx(Target):
    """A folder of four IDX files; the input holds each with its length, and whether it is a .gz."""

    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    kept = ((), ()) * 4  # what each file holds

    def seeds(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
        image_file = struct.pack(">I3I", 0x803, *images.shape) + images.tobytes()
        label_file = struct.pack(">II", 0x801, 2) + bytes([9, 0])
        plain = [(0, image_file), (0, label_file)] * 2
        packed = [(1, gzip.compress(content, mtime=0)) for _, content in plain]
        return [self.joined(plain), self.joined(packed)]

    def joined(self, parts):
        return b"".join(struct.pack(">BI", gz, len(content)) + content for gz, content in parts)

    def parts(self, data):
        found, at = [], 0
        for _ in self.names:
            gz, length = struct.unpack(">BI", data[at : at + 5].ljust(5, b"\0"))
            found.append((gz % 2, data[at + 5 : at + 5 + length]))
            at += 5 + length
        return found

    def mutate(self, data, rng):
        parts = self.parts(data)
        i = rng.randrange(4)
        gz, content = parts[i]
        if rng.random() < 0.1:
            gz = not gz
        elif rng.random() < 0.2 or not content:
            content = mutations.any_bytes(content, rng)
        else:
            content = self.changed(content, gz, rng)
        return self.joined([*parts[:i], (gz, content), *parts[i + 1 :]])

    def changed(self, content, gz, rng):
        """Change the header, or the number of bytes after it."""
        try:
            content = gzip.decompress(content) if gz else content
        except Exception:  # whatever gzip raises: it was damaged before
            return mutations.any_bytes(content, rng)
        at = 4 * rng.randrange(4)
        number = rng.choice([0, 1, 2, 3, 28, 10**6, 10**6 + 1, 2**31, 2**32 - 1, 0x801, 0x803])
        changes = [content[:at] + struct.pack(">I", number) + content[at + 4 :]]
        changes += [content + rng.randbytes(1), content[:-1], content + content[16:], content[:at]]
        content = rng.choice(changes)
        return gzip.compress(content, rng.randrange(10), mtime=0) if gz else content

    def put(self):
        new = self.parts(self.data)
        for name, kept, part in zip(self.names, self.kept, new, strict=False):
            if part != kept:
                ends = ["-ubyte", "-ubyte.gz"]
                (self.folder / (name + ends[not part[0]])).unlink(missing_ok=True)
                (self.folder / (name + ends[part[0]])).write_bytes(part[1])
        self.kept = new

    def read(self):
        return mnist.load_data(self.folder)

    def check(self, loaded):
        arrays = [array for split in loaded for array in split]
        for (gz, content), array, ndim in zip(self.kept, arrays, (3, 1, 3, 1), strict=True):
            content = gzip.decompress(content) if gz else content
            assert content[:4] == bytes([0, 0, 8, ndim])
            assert array.dtype == np.uint8
            assert ndim == 3 or array.max() <= 9
            assert array.shape == struct.unpack(f">{ndim}I", content[4 : 4 + 4 * ndim])
            assert array.tobytes() == content[4 + 4 * ndim :]


class Npz(Target):
    """MNIST in Keras's layout."""

    names = ("x_train", "y_train", "x_test", "y_test")

    def seeds(self):
        rng, found = np.random.default_rng(0), []
        for save, order, labels in ((np.savez, "C", "u1"), (np.savez_compressed, "F", "i8")):
            x, y = rng.integers(0, 256, (2, 28, 28), np.uint8), np.array([9, 0], labels)
            file = io.BytesIO()
            save(file, **dict(zip(self.names, [x.copy(order), y, x, y], strict=True)))
            found.append(file.getvalue())
        return found

    def mutate(self, data, rng):
        return mutations.npz(data, rng)

    def read(self):
        return mnist.load_data(self.path)

    def check(self, loaded):
        arrays = [array for split in loaded for array in split]
        with np.load(io.BytesIO(self.data)) as archive:
            for name, array in zip(self.names, arrays, strict=True):
                assert array.dtype == np.uint8
                assert archive[name].dtype.kind in ("iu" if name.startswith("y") else "u")
                assert np.array_equal(array, archive[name])
                assert array.ndim == 3 or array.max() <= 9


class HistoryJson(Target):
    """What `History.to_json` writes."""

    def seeds(self):
        records = [{"epoch": i, "lr": 0.1, "loss": 1 / i, "val_loss": np.nan} for i in (1, 2, 3)]
        return [json.dumps(records).encode(), b"[]"]

    def mutate(self, data, rng):
        change = mutations.any_bytes if rng.random() < 0.2 else mutations.json_text
        return change(data, rng)

    def read(self):
        return History.from_json(self.path)

    def check(self, loaded):
        assert repr(loaded.records) == repr(json.loads(self.data))
        for record in loaded.records:
            assert {*map(type, record.values())} <= {int, float}
            assert all(isinstance(float(number), float) for number in record.values())
        loaded.to_json(self.path)
        assert repr(History.from_json(self.path)) == repr(loaded)


class Safetensors(Target):
    """The arrays of a model."""

    refusals = (CheckpointError,)

    def reset(self):
        self.model = small_model(0)

    def state(self):
        return pickle.dumps(self.model.state_dict())

    def seeds(self):
        arrays = small_model(1).state_dict()
        return [safetensors_bytes(arrays), safetensors_bytes(arrays, {"by": "me"})]

    def mutate(self, data, rng):
        return mutations.safetensors(data, rng)

    def read(self):
        return import_safetensors(self.path, self.model)

    def check(self, loaded):
        end = 8 + int.from_bytes(self.data[:8], "little")
        header, body = json.loads(self.data[8:end]), self.data[end:]
        header.pop("__metadata__", None)
        state = self.model.state_dict()
        assert header.keys() == state.keys()
        for name, claim in header.items():
            begin, end = claim["data_offsets"]
            assert claim["dtype"] == "F32"
            assert [*state[name].shape] == claim["shape"]
            assert state[name].tobytes() == body[begin:end]


class Checkpoint(Target):
    """All that `checkpoint.load` can set, with every kind of generator."""

    refusals = (CheckpointError,)

    def reset(self):
        self.objects = self.fresh(0)

    def fresh(self, seed):
        kinds = (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
        model = small_model(seed, *(np.random.Generator(kind(seed)) for kind in kinds))
        model[0].others = [random.Random(seed), np.random.RandomState(seed)]
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        inputs, targets = np.eye(7, 4), np.eye(3)[np.arange(7) % 3]
        loader = DataLoader(inputs, targets, batch_size=3, shuffle=True, rng=seed)
        return model, optimizer, loader, History()

    def streams(self):
        model, _, loader, _ = self.objects
        return [holder.rng for holder in (*model[2:], loader)], model[0].others

    def state(self):
        model, optimizer, _, history = self.objects
        generators, (python, old) = self.streams()
        states = [generator.bit_generator.state for generator in generators]
        states += [python.getstate(), old.get_state()]
        return pickle.dumps((model.state_dict(), optimizer.state_dict(), states, history.records))

    def seeds(self):
        found = []
        for seed, epochs in ((1, 0), (2, 1)):
            model, optimizer, loader, history = self.fresh(seed)
            for _ in range(epochs):
                trained = fit(model, MSELoss(), optimizer, loader, epochs=1, progress=False)
                history.records += trained.records
            extra = {"epoch": epochs, "arrays": [np.eye(2), (1.5, "x")]}
            checkpoint.save(self.path, model, optimizer, loader, history, **extra)
            found.append(self.path.read_bytes())
        return found

    def mutate(self, data, rng):
        return mutations.checkpoint(data, rng)

    def read(self):
        return checkpoint.load(self.path, *self.objects)

    def check(self, loaded):
        content, arrays = tree_of(self.data)
        model, optimizer, _, history = self.objects
        for name, array in model.state_dict().items():
            found = arrays[content["model"]["dict"][name]["array"]]
            assert array.dtype == found.dtype
            assert np.array_equal(array, found, equal_nan=True)
        assert optimizer.lr == float(content["optimizer"]["dict"]["lr"])
        assert repr(history.records) == repr([record["dict"] for record in content["history"]])
        assert loaded.keys() == content["meta"]["dict"].keys()
        self.check_that_it_is_saved_alike()
        self.check_that_all_can_draw()

    def check_that_it_is_saved_alike(self):
        checkpoint.save(self.path, *self.objects)
        before, self.objects = self.state(), self.fresh(3)
        checkpoint.load(self.path, *self.objects)
        assert self.state() == before

    def check_that_all_can_draw(self):
        generators, (python, old) = self.streams()
        for generator in generators:
            assert np.ptp(generator.random(1000)) > 0
            assert np.ptp(generator.integers(0, 10, 1000)) > 0
        assert np.ptp([python.random() for _ in range(1000)]) > 0
        assert np.ptp(old.random_sample(1000)) > 0


class ModelFile(Target):
    """A whole model: the classes of its layers, their arguments, and the arrays."""

    refusals = (CheckpointError,)

    def seeds(self):
        chain = Sequential(
            Linear(4, 3, rng=0), BatchNorm(3), Residual(Linear(3, 3, rng=1), shortcut=ReLU())
        )
        images = Sequential(
            Conv2d(1, 2, 3, padding=1, rng=2), MaxPool2d(), Flatten(), LayerNorm(8), Dropout(0.2)
        )
        found = []
        for model in (chain, images, Parallel(Linear(2, 2, rng=3), Sequential(), join="add")):
            save_model(self.path, model, epoch=1, arrays=[np.eye(2), (1.5, "x")])
            found.append(self.path.read_bytes())
        return found

    def mutate(self, data, rng):
        return mutations.checkpoint(data, rng, lambda tree: tree["dict"]["structure"])

    def read(self):
        return load_model(self.path)

    def check(self, loaded):
        (model, meta), (content, arrays) = loaded, tree_of(self.data)
        for name, array in model.state_dict().items():
            found = arrays[content["model"]["dict"][name]["array"]]
            assert array.dtype == found.dtype
            assert np.array_equal(array, found, equal_nan=True)
        assert meta.keys() == content["meta"]["dict"].keys()
        save_model(self.path, model)
        again, _ = load_model(self.path)
        assert repr(again) == repr(model)
        assert pickle.dumps(again.state_dict()) == pickle.dumps(model.state_dict())


class Resume(Checkpoint):
    """A run that goes on from its file, also within an epoch: `fit(..., resume=True)`."""

    epochs, batches = 2, 3  # in all, and in each epoch

    refusals = (CheckpointError, ValueError)  # the second: within an epoch after the last

    def seeds(self):
        found, every = [], self.batches
        for seed, steps in ((1, 1), (2, 2), (3, every), (4, every + 2)):
            self.objects = self.fresh(seed)
            with contextlib.suppress(KeyboardInterrupt):
                self.fit(Stopping(steps), resume=False)
            found.append(self.path.read_bytes())
        self.reset()
        return found

    def mutate(self, data, rng):
        return mutations.checkpoint(data, rng, lambda tree: tree["dict"]["meta"])

    def fit(self, loss, resume):
        model, optimizer, loader, _ = self.objects
        options = {"epochs": self.epochs, "progress": False, "metrics": ["accuracy"]}
        files = {"checkpoint": self.path, "checkpoint_every": 1, "resume": resume}
        return fit(model, loss, optimizer, loader, **options, **files)

    def read(self):
        loss = Stopping(10**9)
        try:
            with np.errstate(all="ignore"):
                return loss, self.fit(loss, resume=True)
        except FloatingPointError:  # the weights in the file are huge
            return loss, None

    def check(self, loaded):
        """Compare the batches trained on with those that the file leaves to do."""
        loss, history = loaded
        if history is None:
            return
        content, _ = tree_of(self.data)
        meta, done = content["meta"]["dict"], len(content["history"])
        batches, left = 0, self.epochs - done
        if meta.get("position"):
            position = meta["position"]["dict"]
            assert meta["epoch"] == done + 1
            assert 1 <= position["batches"] <= self.batches
            batches, left = self.batches - position["batches"], left - 1
        if not meta.get("stopped"):
            batches += max(0, left) * self.batches
        assert loss.calls == batches
        assert len(history.records) == done + math.ceil(batches / self.batches)
        assert repr(history.records[:done]) == repr([r["dict"] for r in content["history"]])


class Stopping(MSELoss):
    """Counts its calls, and is interrupted after so many."""

    def __init__(self, most):
        super().__init__()
        self.most, self.calls = most, 0

    def __call__(self, pred, target):
        if self.calls == self.most:
            raise KeyboardInterrupt
        self.calls += 1
        return super().__call__(pred, target)


def small_model(seed, *generators):
    """Return a model with a Dropout for each generator."""
    dropouts = (Dropout(0.1, rng=generator) for generator in generators)
    return Sequential(Linear(4, 3, rng=seed), ReLU(), *dropouts)


def tree_of(data):
    """Return what a checkpoint holds, read by NumPy and json alone: its tree, and the arrays."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays["tree"].tobytes())["dict"], arrays


TARGETS = {
    "idx": Idx,
    "npz": Npz,
    "history": HistoryJson,
    "safetensors": Safetensors,
    "checkpoint": Checkpoint,
    "model": ModelFile,
    "resume": Resume,
}
