def test_1(f):
    assert f(1, 2) == 2


def test_2(f):
    assert f(9, 3) == 9


def test_3(f):
    assert f(4, 4) == 4


def test_4(f):
    assert f(-5, -2) == -2


def test_5(f):
    assert f(0, -1) == 0
