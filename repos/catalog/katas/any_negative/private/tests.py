def test_1(f):
    assert f([1, 2]) is False


def test_2(f):
    assert f([1, -2]) is True


def test_3(f):
    assert f([0, 1]) is False


def test_4(f):
    assert f([-5]) is True


def test_5(f):
    assert f([]) is False
