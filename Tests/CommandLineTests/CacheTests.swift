import TestSupport
import Testing

/// A prompt's keys and values go from one process to another.
@Suite struct CacheTests {
  #if DEBUG
    static let recipes = ["nvfp4"]
  #else
    static let recipes = ["f32", "bf16", "fp8_e4m3", "nvfp4", "nvfp4_4over6", "fp4_mx_block16", "mxfp4"]
  #endif

  /// The answer after `cache load` in a new process is that of one process, for a seeded sample.
  @Test(arguments: recipes) func anotherProcessGoesOn(recipe: String) throws {
    let folder = try TemporaryFolder()
    let file = folder.file("prefix")
    let prompt = "Once upon a time there was a little dragon who"
    let options = ["--kv-cache-dtype", recipe, "--temperature", "0.9", "--seed", "3", "-n", "12", "--ignore-eos"]
    let saved = try Command.run(["cache", "save", file, prompt, "--kv-cache-dtype", recipe])
    #expect(saved.status == 0, "\(saved.errors)")
    let loaded = try Command.run(["cache", "load", file] + options)
    let whole = try Command.run(["generate", "--raw", prompt] + options)
    #expect(loaded.status == 0 && whole.status == 0, "\(loaded.errors)")
    #expect(loaded.output == whole.output)
    #expect(loaded.errors.contains("of them from the cache"))
  }

  @Test func refusesOtherFiles() throws {
    let folder = try TemporaryFolder()
    let file = folder.file("prefix")
    #expect(try Command.run(["cache", "save", file, "Mia has 3 coins."]).status == 0)
    let other = try Command.run(["cache", "load", file, "--kv-cache-dtype", "mxfp4"])
    #expect(other.status == 65)
    #expect(other.errors.contains("expected kv_cache_dtype_k mxfp4, found nvfp4"))
    var bytes = try readBytes(file)
    try writeFile(Array(bytes.dropLast(100)), to: file)
    let truncated = try Command.run(["cache", "load", file])
    #expect(truncated.status == 65 && truncated.errors.contains("truncated"))
    bytes[bytes.count - 100] ^= 1
    try writeFile(bytes, to: file)
    let damaged = try Command.run(["cache", "load", file])
    #expect(damaged.status == 65 && damaged.errors.contains("checksum"), "\(damaged.errors)")
    try writeFile("something else, and long enough to have had a header of forty bytes", to: file)
    let foreign = try Command.run(["cache", "load", file])
    #expect(foreign.status == 65 && foreign.errors.contains("expected it to start with NIBBLEKV"), "\(foreign.errors)")
    let missing = try Command.run(["cache", "load", folder.file("missing")])
    #expect(missing.status == 69 && missing.errors.contains("No such file"), "\(missing.errors)")
    let full = try Command.run(["cache", "save", "/dev/full", "Mia has 3 coins."])
    #expect(full.status == 69 && full.errors.contains("No space left on device"))
  }
}
