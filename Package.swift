// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "nibble",
  products: [
    .library(name: "Nibble", targets: ["Engine", "TextCodec"]),
    .executable(name: "nibble", targets: ["nibble"]),
    .executable(name: "nibble-device", targets: ["nibble-device"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    // Number formats, storage and their C kernels.
    .target(name: "CSIMD"),
    .target(name: "BlockFormats"),
    .target(name: "KVQuantization", dependencies: ["BlockFormats", "CSIMD"]),
    .target(name: "PagedCache", dependencies: ["KVQuantization", "CSIMD"]),

    // Computation: the interfaces and their two implementations.
    .target(name: "Operators", dependencies: ["PagedCache", "KVQuantization", "BlockFormats"]),
    .target(name: "CPUBackend", dependencies: ["Operators", "CSIMD"]),
    .target(name: "CKernelSources", exclude: ["Kernels"]),
    .target(name: "CUDASupport", dependencies: ["CKernelSources"]),
    .target(name: "CUDABackend", dependencies: ["CUDASupport", "Operators"]),

    // Files, text, models.
    .target(name: "JSON"),
    .target(name: "Checkpoints", dependencies: ["JSON", "BlockFormats", "KVQuantization", "CSIMD"]),
    .target(name: "TextCodec", dependencies: ["JSON"]),
    .target(name: "ModelFamilies", dependencies: ["Operators", "Checkpoints"]),

    // Rules of other engines' command lines.
    .target(name: "LaunchRules"),

    // The engine and its programs.
    .target(
      name: "Engine", dependencies: ["ModelFamilies", "TextCodec", "CPUBackend", "CUDABackend", "JSON"]),
    .executableTarget(
      name: "nibble",
      dependencies: [
        "Engine", "LaunchRules", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    .executableTarget(name: "nibble-device", dependencies: ["CUDABackend", "CPUBackend"]),

    .target(name: "TestSupport", path: "Tests/TestSupport"),
    .testTarget(name: "BlockFormatsTests", dependencies: ["BlockFormats", "TestSupport"]),
    .testTarget(name: "JSONTests", dependencies: ["JSON", "TestSupport"]),
    .testTarget(
      name: "KVQuantizationTests",
      dependencies: ["KVQuantization", "BlockFormats", "CSIMD", "JSON", "Checkpoints", "PagedCache", "TestSupport"],
      exclude: ["Resources"]),
    .testTarget(name: "PagedCacheTests", dependencies: ["PagedCache", "KVQuantization", "CSIMD", "TestSupport"]),
    .testTarget(name: "OperatorsTests", dependencies: ["Operators", "KVQuantization", "TestSupport"]),
    .testTarget(name: "CPUBackendTests", dependencies: ["CPUBackend", "CSIMD", "TestSupport"]),
    .target(name: "FakeCUDADriver", dependencies: ["CUDASupport"], path: "Tests/FakeCUDADriver"),
    .testTarget(name: "CUDASupportTests", dependencies: ["CUDASupport", "FakeCUDADriver"]),
    .testTarget(name: "CUDABackendTests", dependencies: ["CUDABackend", "FakeCUDADriver"]),
    .testTarget(
      name: "CheckpointsTests", dependencies: ["Checkpoints", "JSON", "KVQuantization", "PagedCache", "TestSupport"]),
    .testTarget(name: "LaunchRulesTests", dependencies: ["LaunchRules", "TestSupport"]),
    .testTarget(name: "TextCodecTests", dependencies: ["TextCodec", "JSON", "TestSupport"], exclude: ["Resources"]),
    .testTarget(
      name: "ModelFamiliesTests", dependencies: ["ModelFamilies", "CPUBackend", "TestSupport"], exclude: ["Resources"]),
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    .testTarget(name: "EngineTests", dependencies: ["Engine", "CSIMD", "AllocationCounter", "TestSupport"]),
    .testTarget(name: "CommandLineTests", dependencies: ["nibble", "JSON", "TestSupport"]),
  ],
  swiftLanguageModes: [.v6],
  cLanguageStandard: .c2x
)
