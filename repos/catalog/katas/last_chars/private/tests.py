def test_1(f):
    assert f(['apple', 'bob']) == ['e', 'b']


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f(['Z']) == ['Z']


def test_4(f):
    assert f(['one', 'two', 'ten']) == ['e', 'o', 'n']
