def test_1(f):
    assert f(3) == 'Fizz'


def test_2(f):
    assert f(4) == '4'


def test_3(f):
    assert f(9) == 'Fizz'


def test_4(f):
    assert f(10) == '10'


def test_5(f):
    assert f(1) == '1'
