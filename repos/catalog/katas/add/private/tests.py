def test_1(f):
    assert f(1, 2) == 3


def test_2(f):
    assert f(0, 0) == 0


def test_3(f):
    assert f(-4, 9) == 5


def test_4(f):
    assert f(100, 250) == 350


def test_5(f):
    assert f(-3, -8) == -11
