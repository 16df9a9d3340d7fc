import Checkpoints
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

@Suite struct SafetensorsTests {
  let directory: TemporaryFolder

  init() throws { directory = try TemporaryFolder() }

  @Test func writesAndReadsBack() throws {
    let path = "\(directory.path)/a.safetensors"
    var writer = try SafetensorsWriter(
      path: path,
      tensors: [
        .init(name: "a", dtype: .float32, shape: [2, 3]), .init(name: "scalar", dtype: .bfloat16, shape: []),
        .init(name: "none", dtype: .int64, shape: [0, 7]), .init(name: "b", dtype: .float4E2M1, shape: [4]),
      ], metadata: ["format": "pt"])
    let values: [Float] = [1, -2, 3.5, 4, 5, 6]
    try values.withUnsafeBytes { try writer.append($0) }
    try [UInt8]([0x80, 0x3F, 0x21, 0x43]).withUnsafeBytes { try writer.append($0) }
    try writer.finish()
    let file = try SafetensorsFile(path: path)
    #expect(file.tensorNames.sorted() == ["a", "b", "none", "scalar"])
    #expect(file.metadata == ["format": "pt"])
    let a = try file.tensor(named: "a")
    #expect(a.dtype == .float32 && a.shape == [2, 3] && a.elementCount == 6)
    #expect((0..<6).map { a.bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) } == values)
    #expect(try Array(file.tensor(named: "scalar").bytes) == [0x80, 0x3F])
    #expect(try file.tensor(named: "none").bytes.isEmpty)
    #expect(try Array(file.tensor(named: "b").bytes) == [0x21, 0x43])
    #expect(throws: CheckpointError.missingTensor(name: "c", path: path)) { try file.tensor(named: "c") }
  }

  @Test func aFullDiskLeavesNothingBehind() throws {
    let path = directory.file("full.safetensors")
    let partial = "\(path).\(getpid()).part"
    symlink("/dev/full", partial)
    #expect(throws: CheckpointError.unwritable(path: path, reason: "No space left on device")) {
      let writer = try SafetensorsWriter(path: path, tensors: [.init(name: "a", dtype: .uint8, shape: [0])])
      try writer.finish()
    }
    for name in [path, partial] { #expect(unlink(name) != 0 && errno == ENOENT, "\(name) is left") }
  }

  /// A rename would take away what is no regular file: a link here, in /dev a device.
  @Test func linksAreWrittenThrough() throws {
    let file = try directory.write("file", [UInt8](repeating: 0x20, count: 4096))
    let link = directory.file("link")
    symlink(file, link)
    let writer = try SafetensorsWriter(path: link, tensors: [.init(name: "a", dtype: .uint8, shape: [0])])
    try writer.finish()
    #expect(try SafetensorsFile(path: file).tensorNames == ["a"])
    var status = stat()
    #expect(lstat(link, &status) == 0 && (status.st_mode & S_IFMT) == S_IFLNK)
  }

  @Test func unfinishedFilesDoNotAppear() throws {
    let path = "\(directory.path)/b.safetensors"
    #expect(throws: CheckpointError.self) {
      let writer = try SafetensorsWriter(path: path, tensors: [.init(name: "a", dtype: .uint8, shape: [4])])
      try writer.finish()
    }
    #expect(throws: CheckpointError.unreadable(path: path, reason: "No such file or directory")) {
      try SafetensorsFile(path: path)
    }
  }

  @Test(arguments: [
    (
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
      12,
      "overlap"
    ),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4, "outside"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12, "4 bytes before tensor 'a'"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9, "1 bytes after the last tensor"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "outside"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#, 8, "outside"),
    (#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8, "needs 12 bytes"),
    (#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}"#, 8, "unknown dtype 'F31'"),
    (#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, 8, "no dtype"),
    (#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#, 8, "no shape"),
    (#"{"a":{"dtype":"F32","shape":[2]}}"#, 8, "no data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8, "no data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0.5,8]}}"#, 8, "no data_offsets"),
    (#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "no size: -2"),
    (#"{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}"#, 8, "no size: 2.5"),
    (#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#, 8, "too large"),
    (#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1, "whole byte"),
    (
      #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1,
      "appears twice"
    ),
    (#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#, 4, "17 dimensions"),
    (#"[1]"#, 0, "an array"), (#"{"a":"#, 0, "not readable"),
    (String(repeating: #"{"a":"#, count: 40), 0, "deeper than 16"),
  ])
  func refusesAHeaderThatLies(header: String, dataBytes: Int, expected: String) throws {
    let path = try directory.write("bad.safetensors", tensorFile(header: header, dataBytes: dataBytes))
    let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
    #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
  }

  @Test func refusesAHeaderLengthThatLies() throws {
    for (length, expected) in [
      (UInt64.max, "more than the limit"), (100_000_001, "more than the limit"), (99_999_999, "only 10"),
      (3, "only 10"), (0, "not readable"),
    ] {
      let path = try directory.write(
        "length.safetensors", tensorFile(header: "{}", dataBytes: 0, claimedLength: length))
      let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
      #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
    }
    for bytes in [[], [1, 2, 3]] as [[UInt8]] {
      let path = try directory.write("short.safetensors", bytes)
      #expect(throws: CheckpointError.self) { try SafetensorsFile(path: path) }
    }
  }

  /// Damage anywhere in a file gives tensors inside it or an error.
  @Test func mutationsNeverTrap() throws {
    let seed = tensorFile(
      header: #"""
        {"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"U8","shape":[0],"data_offsets":[32,32]}}
        """#, dataBytes: 32)
    var generator = SplitMix(seed: 11)
    var (read, refused) = (0, 0)
    for round in 0..<6000 {
      var bytes = seed
      if round % 4 == 0 {
        bytes[Int.random(in: 0..<8, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      } else {
        // Keep the length honest, so that the damage reaches the header's reader.
        var header = Array(seed[8..<seed.count - 32])
        generator.mutate(&header)
        bytes =
          withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
          + [UInt8](repeating: 0, count: 32)
      }
      do throws(CheckpointError) {
        let header = try bytes.withUnsafeBufferPointer { (buffer) throws(CheckpointError) in
          try SafetensorsHeader(bytes: UnsafeRawBufferPointer(buffer), path: "x")
        }
        #expect(header.entries.allSatisfy { $0.range.lowerBound >= 8 && $0.range.upperBound <= bytes.count })
        read += 1
      } catch {
        #expect(!error.description.isEmpty)
        refused += 1
      }
    }
    #expect(read > 50 && refused > 1000, "\(read) read, \(refused) refused")
  }
}
