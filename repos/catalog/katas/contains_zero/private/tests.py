def test_1(f):
    assert f([1, 0]) is True


def test_2(f):
    assert f([]) is False


def test_3(f):
    assert f([1, 2]) is False


def test_4(f):
    assert f([0]) is True
