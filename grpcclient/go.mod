module github.com/backstay-go/backstay/grpcclient

go 1.26.0

require github.com/backstay-go/backstay v0.0.0

replace github.com/backstay-go/backstay => ..
