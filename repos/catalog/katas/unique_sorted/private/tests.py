def test_1(f):
    assert f([3, 1, 3]) == [1, 3]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([2, 2]) == [2]


def test_4(f):
    assert f(['b', 'a', 'b']) == ['a', 'b']
