def test_1(f):
    assert f([1, 1, 1]) is True


def test_2(f):
    assert f([1, 2]) is False


def test_3(f):
    assert f(['a', 'a']) is True


def test_4(f):
    assert f([3, 3, 4]) is False


def test_5(f):
    assert f([7]) is True
