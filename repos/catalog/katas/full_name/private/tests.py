def test_1(f):
    assert f('Ada', 'Lovelace') == 'Ada Lovelace'


def test_2(f):
    assert f('A', 'B') == 'A B'


def test_3(f):
    assert f('Alan', 'Turing') == 'Alan Turing'


def test_4(f):
    assert f('x', 'y') == 'x y'
