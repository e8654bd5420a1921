def test_1(f):
    assert f(['a', 'b'], [1, 2]) == {'a': 1, 'b': 2}


def test_2(f):
    assert f([], []) == {}


def test_3(f):
    assert f([5], [6]) == {5: 6}


def test_4(f):
    assert f(['x', 'y'], ['p', 'q']) == {'x': 'p', 'y': 'q'}
