def test_1(f):
    assert f([1, 2]) == ['1', '2']


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([-5]) == ['-5']


def test_4(f):
    assert f([10, 0]) == ['10', '0']
