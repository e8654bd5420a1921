def test_1(f):
    assert f(5, 3) == 2


def test_2(f):
    assert f(3, 5) == 2


def test_3(f):
    assert f(0, 0) == 0


def test_4(f):
    assert f(-4, 4) == 8


def test_5(f):
    assert f(-10, -3) == 7
