def test_1(f):
    assert f([1, 2, 1]) is True


def test_2(f):
    assert f([]) is False


def test_3(f):
    assert f(['a', 'b']) is False


def test_4(f):
    assert f([3, 3]) is True
