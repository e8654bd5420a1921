def test_1(f):
    assert f(['a', 'bbb', 'cc']) == [1, 3, 2]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f(['hello']) == [5]


def test_4(f):
    assert f(['', 'ab']) == [0, 2]
