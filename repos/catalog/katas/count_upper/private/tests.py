def test_1(f):
    assert f('Hello World') == 2


def test_2(f):
    assert f('abc') == 0


def test_3(f):
    assert f('') == 0


def test_4(f):
    assert f('ABC') == 3


def test_5(f):
    assert f('aB1') == 1
