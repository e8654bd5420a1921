def test_1(f):
    assert f([1, 2, 3]) == [3, 2, 1]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f(['a', 'b']) == ['b', 'a']


def test_4(f):
    assert f([7]) == [7]
