"""The table that shows itself."""

from tinygrad_mnist._display import Table


def test_columns_are_aligned_names_left_and_numbers_right():
    table = Table(["layer", "parameters"], [["0: Linear", "101,632"], ["1", "0"]], "A model")
    assert str(table) == (
        "A model\n"
        "layer      parameters\n"
        "0: Linear     101,632\n"
        "1                   0"
    )  # fmt: skip
    assert repr(table) == str(table)


def test_a_table_of_a_header_alone():
    assert str(Table(["epoch", "loss"], [])) == "epoch  loss"


def test_html_escapes_what_cells_hold():
    html = Table(["<a>", "b"], [["1 < 2", "&"]], "<t>")._repr_html_()
    assert "<caption>&lt;t&gt;</caption>" in html
    assert ">1 &lt; 2</td>" in html
    assert ">&amp;</td>" in html
    assert html.count("<tr>") == 2
