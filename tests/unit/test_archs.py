"""Networks: the published parameter counts, the embedding layers, and weights that depend on their stream alone."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from bench import archs
from bench.api import last_linear
from bench.archs.lookup import scan
from bench.identity import Rng

RNG = Rng("test archs")
QUICK = {"alexnet": 0.5, "densenet": 0.5, "resnet18": 0.125, "resnet50": 0.125, "vgg16": 0.25, "wrn": 0.25}
# The widest convolution of DenseNet-BC: its layers are many and narrow.
LONGEST_KEY = {"densenet": 9 * 4 * 12}


def outline(name: str, width: float = 1.0) -> nn.Module:
    """The network without memory for its weights, which takes no time to make."""
    with torch.device("meta"):
        return archs.arch(name).build(10, width)


def parameters(name: str) -> int:
    return sum(p.numel() for p in outline(name).parameters())


def mean_filter_sizes(name: str, width: float = 1.0) -> list[int]:
    net = outline(name, width)
    return [net.get_submodule(path).weight.mean(0).numel() for path in archs.arch(name).layers.values()]


def test_names_and_their_modules_without_importing_the_networks():
    script = (
        "import sys; from bench import archs; "
        "names = (*archs.names(), 'resnet-18-16', 'wrn-16-2'); "
        "print([archs.module_of(name) for name in names], 'bench.archs.wrn' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    files = ["alexnet", "densenet", "resnet", "resnet", "vgg", "wrn", "resnet", "wrn"]
    assert run.stdout.strip() == f"{[f'bench.archs.{file}' for file in files]} False"


ONE = "from bench.api import Arch\nclass _Base(Arch):\n    title = 'x'\nclass {cls}(_Base):\n    name = '{name}'\n"


def test_a_new_file_is_all_that_an_architecture_takes(tmp_path):
    (tmp_path / "one.py").write_text(ONE.format(cls="One", name="one"))
    family = "from bench.api import Arch\nclass F(Arch):\n    pattern: str = r'two-(?P<D>\\d{1,3})-(?P<K>\\d+)'\n"
    (tmp_path / "two.py").write_text(family)
    (tmp_path / "help.py").write_text("class Helper:\n    name = 'not an architecture'\n")
    assert [(each.label, each.cls, each.file.name) for each in scan(tmp_path)] == [
        ("one", "One", "one.py"), ("two-D-K", "F", "two.py"),
    ]  # fmt: skip


def test_two_files_that_declare_one_name_are_both_named(tmp_path):
    for file in ("a.py", "b.py"):
        (tmp_path / file).write_text(ONE.format(cls="One", name="same"))
    with pytest.raises(ValueError, match=r'called "same", but .*a\.py and .*b\.py declare it'):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["resnet-18-16", "resnet-152-8", "wrn-16-2"])
def test_a_member_of_a_family_bears_its_name(name):
    assert archs.arch(name).name == name


@pytest.mark.parametrize("name", archs.names())
def test_an_architecture_is_found_by_the_name_it_bears(name):
    found = archs.arch(name)
    assert found.name == name
    assert type(found).__module__ == archs.module_of(name)
    assert set(found.layers) == {"conv2", "conv3", "conv4"}


@pytest.mark.parametrize("lookup", [archs.arch, archs.module_of])
def test_a_wrong_name_is_answered_with_a_near_one(lookup):
    with pytest.raises(ValueError, match=r'^Expected an architecture, but got "wnr"\. Did you mean "wrn"\? Known: '):
        lookup("wnr")


def test_a_name_without_neighbours_lists_what_is_known():
    with pytest.raises(
        ValueError, match=r'got "x"\. Known: alexnet, densenet, resnet18, .*, wrn, resnet-D-W, wrn-D-K\.$'
    ):
        archs.arch("x")


@pytest.mark.parametrize("name", ["wrn-12-2", "wrn-4-1", "wrn-10-0"])
def test_an_impossible_depth_or_width_is_refused(name):
    with pytest.raises(ValueError, match=rf"depth D of 10, 16, .* but got {name}\.$"):
        archs.arch(name)


@pytest.mark.parametrize("name", ["resnet-20-16", "resnet-18-0", "resnet-18-6"])
def test_a_resnet_of_another_depth_or_an_odd_width_is_refused(name):
    with pytest.raises(ValueError, match=rf"depth D of 18, 34, 50, 101, 152 and a width W of 4, .* but got {name}\.$"):
        archs.arch(name)


COUNTS = {
    "wrn": 1_200_170,
    "wrn-10-4": 1_200_170,
    "alexnet": 2_506_570,
    "densenet": 769_162,
    "resnet18": 11_173_962,
    "resnet-34-64": 21_282_122,
    "resnet50": 23_520_842,
    "resnet-101-64": 42_512_970,
    "resnet-152-64": 58_156_618,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts_given_exactly(name, count):
    assert parameters(name) == count


@pytest.mark.parametrize(("name", "millions"), [("vgg16", 14.7), ("resnet50", 23.5)])
def test_parameter_counts_given_in_millions(name, millions):
    assert parameters(name) / 1e6 == pytest.approx(millions, rel=0.01)


def test_parameters_of_a_deeper_wrn_by_hand():
    def block(incoming: int, channels: int) -> int:
        convolutions = 9 * incoming * channels + channels + 9 * channels**2 + channels
        shortcut = 0 if incoming == channels else incoming * channels + channels
        return convolutions + 4 * channels + shortcut

    groups = [(16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    stem, head = 9 * 3 * 16 + 16 + 2 * 16, 128 * 10 + 10
    assert parameters("wrn-16-2") == stem + sum(block(*pair) for pair in groups) + head


def test_parameters_of_a_narrow_resnet_by_hand():
    def block(incoming: int, channels: int) -> int:
        shortcut = 0 if incoming == channels else incoming * channels + 2 * channels
        return 9 * incoming * channels + 9 * channels**2 + 4 * channels + shortcut

    stages = [(16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    assert parameters("resnet-18-16") == 27 * 16 + 2 * 16 + sum(block(*pair) for pair in stages) + 128 * 10 + 10


@pytest.mark.parametrize(("plain", "member"), [("resnet18", "resnet-18-8"), ("resnet50", "resnet-50-8")])
def test_the_published_resnets_are_of_the_family(plain, member):
    one, other = archs.build(plain, 10, width=0.125, rng=RNG), archs.build(member, 10, rng=RNG)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_every_layer_of_a_dense_block_sees_all_before_it():
    net = outline("densenet")
    for number, incoming in enumerate((24, 108, 150), start=1):
        widths = [layer.conv1.in_channels for layer in net.get_submodule(f"block{number}").children()]
        assert widths == [incoming + 12 * place for place in range(16)]
    assert net.fc.in_features == 150 + 16 * 12
    assert not any(isinstance(module, nn.MaxPool2d) for module in net.modules())


def test_a_dense_layer_keeps_what_it_was_given():
    block = archs.build("densenet", 10, width=0.5, rng=RNG).eval().net.block2
    x = torch.randn(2, block.denselayer1.conv1.in_channels, 4, 4, generator=RNG.torch("dense"))
    with torch.no_grad():
        assert torch.equal(block(x)[:, : x.shape[1]], x)


def test_the_narrow_wrn_is_the_one_of_widening_factor_1():
    narrow, one = archs.build("wrn", 10, width=0.25, rng=RNG), archs.build("wrn-10-1", 10, rng=RNG)
    assert all(torch.equal(a, b) for a, b in zip(narrow.parameters(), one.parameters(), strict=True))


def test_embedding_layers_of_wrn_have_the_papers_mean_filters():
    assert mean_filter_sizes("wrn") == [576, 1152, 2304]


def test_embedding_layers_of_wrn_are_the_second_convolutions_of_their_groups():
    order = [name for name, module in archs.build("wrn-16-1", 10, rng=RNG).named_modules() if is_3x3(module)]
    assert [order.index(archs.layer_path("wrn-16-1", group)) for group in ("conv2", "conv3", "conv4")] == [2, 6, 10]


def is_3x3(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


@pytest.mark.parametrize("name", archs.names())
def test_embedding_layers_hold_long_keys(name):
    assert min(mean_filter_sizes(name)) >= LONGEST_KEY.get(name, 512)
    assert mean_filter_sizes(name, width=QUICK[name])[0] >= 128


@pytest.mark.parametrize("name", archs.names())
def test_embedding_layers_lie_ever_deeper(name):
    order = [path for path, _ in archs.build(name, 10, width=QUICK[name], rng=RNG).named_modules()]
    places = [order.index(archs.layer_path(name, group)) for group in ("conv2", "conv3", "conv4")]
    assert places == sorted(places)


def test_an_unknown_layer_group_is_refused():
    with pytest.raises(ValueError, match=r'of wrn \(conv2, conv3, conv4\), but got "conv9"'):
        archs.layer_path("wrn", "conv9")


@pytest.mark.parametrize("name", archs.names())
@pytest.mark.parametrize("size", [32, 64])
def test_logits_and_features_at_any_size(name, size):
    model = archs.build(name, 7, width=QUICK[name] / 2, rng=RNG).eval()
    images = torch.rand(2, 3, size, size, generator=RNG.torch("images"))
    with torch.no_grad():
        logits, features = model(images), model.features(images)
        head = model.net.get_submodule(archs.arch(name).head)
        assert logits.shape == (2, 7)
        assert torch.equal(head(features), logits)
    assert features.shape == (2, head.in_features)
    assert model.get_submodule(last_linear(model)) is head
    assert not head._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("densenet", [32, 16, 8]),
        ("resnet18", [32, 16, 8, 4]),
        ("resnet50", [32, 16, 8, 4]),
        ("vgg16", [16, 8, 4, 2, 1]),
        ("wrn", [32, 16, 8]),
    ],
)
def test_resolutions_of_the_stages(name, sides):
    net, x, seen = outline(name, QUICK[name]), torch.zeros(1, 3, 32, 32, device="meta"), []
    for part, module in net.named_children():
        x = module(x)
        if part.startswith(("block", "stage", "group")):
            seen.append(x.shape[-1])
    assert seen == sides


def test_normalisation_is_inside():
    model = archs.build("wrn", 10, width=0.25, rng=RNG).eval()
    grey = torch.full((1, 3, 32, 32), 0.5)
    with torch.no_grad():
        assert torch.equal(model(grey), model.net(torch.zeros(1, 3, 32, 32)))
        assert torch.equal(model(grey + 0.25), model.net(torch.ones(1, 3, 32, 32)))


@pytest.mark.parametrize("name", archs.names())
def test_weights_depend_on_the_stream_alone(name):
    first = archs.build(name, 10, width=QUICK[name], rng=RNG)
    torch.rand(3, generator=torch.default_generator)
    again = archs.build(name, 10, width=QUICK[name], rng=RNG)
    other = archs.build(name, 10, width=QUICK[name], rng=RNG.child("other"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    layer = archs.layer_path(name, "conv2")
    assert not torch.equal(first.get_submodule(layer).weight, other.get_submodule(layer).weight)


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    archs.build("wrn", 10, width=0.25, rng=RNG)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", archs.names())
def test_nothing_works_in_place_and_convolutions_are_channels_last(name):
    model = archs.build(name, 10, width=QUICK[name], rng=RNG)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    weight = model.get_submodule(archs.layer_path(name, "conv2")).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_width_must_be_positive():
    with pytest.raises(ValueError, match=r"width multiplier above 0, but got -1"):
        archs.build("alexnet", 10, width=-1, rng=RNG)


def test_wrn_blocks_add_the_raw_input_and_nothing_follows():
    block = archs.build("wrn", 10, rng=RNG).eval().net.get_submodule("group1.0")
    nn.init.zeros_(block.norm2.weight)
    nn.init.constant_(block.norm2.bias, -1.0)  # the ReLU before the addition turns the branch off
    x = torch.randn(2, 16, 8, 8, generator=RNG.torch("block"))
    with torch.no_grad():
        y = block(x)
        assert torch.equal(y, nn.functional.conv2d(x, block.shortcut.weight, block.shortcut.bias))
    assert (y < 0).any()
