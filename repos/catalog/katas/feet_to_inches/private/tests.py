def test_1(f):
    assert f(1) == 12


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(6) == 72


def test_4(f):
    assert f(10) == 120


def test_5(f):
    assert f(3) == 36
