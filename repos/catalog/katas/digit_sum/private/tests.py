def test_1(f):
    assert f(5) == 5


def test_2(f):
    assert f(12) == 3


def test_3(f):
    assert f(999) == 27


def test_4(f):
    assert f(100) == 1


def test_5(f):
    assert f(4321) == 10
