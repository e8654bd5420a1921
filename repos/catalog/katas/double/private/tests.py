def test_1(f):
    assert f(4) == 8


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(-7) == -14


def test_4(f):
    assert f(50) == 100


def test_5(f):
    assert f(1) == 2
