def test_1(f):
    assert f(0) == 1


def test_2(f):
    assert f(1) == 1


def test_3(f):
    assert f(3) == 6


def test_4(f):
    assert f(5) == 120


def test_5(f):
    assert f(7) == 5040
