def test_1(f):
    assert f(2, 3) == 6


def test_2(f):
    assert f(0, 9) == 0


def test_3(f):
    assert f(-4, 5) == -20


def test_4(f):
    assert f(-3, -3) == 9


def test_5(f):
    assert f(12, 12) == 144
