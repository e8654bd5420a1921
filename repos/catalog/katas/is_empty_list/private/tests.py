def test_1(f):
    assert f([]) is True


def test_2(f):
    assert f([1]) is False


def test_3(f):
    assert f(['']) is False


def test_4(f):
    assert f([0, 0]) is False


def test_5(f):
    assert f(list()) is True
