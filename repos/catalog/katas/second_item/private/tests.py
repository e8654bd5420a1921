def test_1(f):
    assert f([1, 2, 3]) == 2


def test_2(f):
    assert f(['a', 'b']) == 'b'


def test_3(f):
    assert f([5, 0]) == 0


def test_4(f):
    assert f([0, 9, 1]) == 9
